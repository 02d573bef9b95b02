"""What operators and their programs see: logs, health, metrics. None of it names a repository or a secret."""
