"""All reads for people and programs. Each statement contains the condition on what the caller may see."""
