"""What the environment says of proxies and certificates."""

import os
import re
import ssl
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

from mirror.errors import ConfigError

# The first one that is set counts; all that are set must name existing files or folders.
CERTIFICATE_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

_PORTS = {"http": 80, "https": 443}
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")  # what `openssl rehash` calls certificates


def proxy_of(scheme: str, host: str, port: int | None, proxies: Mapping[str, str]) -> str | None:
    """Return the address of the proxy for a host, or None for a direct connection.

    `proxies` maps ``http``, ``https``, ``all`` and ``no`` to values, as `urllib.request.getproxies` does;
    `port` None means the scheme's own. Raises ConfigError for a proxy that cannot be used; the error names
    the variable but not its value, which may hold a password.
    """
    name = proxy_variable(scheme, proxies)
    value = proxies.get(name.removesuffix("_proxy"), "").strip()
    if not value or _is_exempt(host, port or _PORTS.get(scheme), proxies.get("no", "")):
        return None
    remedy = f'write it as "http://HOST:PORT", or add {host} to no_proxy'
    if "://" not in value:
        value = f"http://{value}"
    try:
        parts = urlsplit(value)
        usable = bool(parts.hostname and parts.port != 0)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"{name}: what the environment holds is not an address; {remedy}")
    if parts.scheme.startswith("socks"):
        raise ConfigError(f"{name}: SOCKS proxies ({parts.scheme}) are not supported; {remedy}")
    if parts.scheme not in _PORTS:
        raise ConfigError(f"{name}: proxies of the kind {parts.scheme!r} are not supported; {remedy}")
    return value


def proxy_variable(scheme: str, proxies: Mapping[str, str]) -> str:
    """Return the name of the variable that holds the proxy for a scheme, if one does."""
    return f"{scheme if proxies.get(scheme) else 'all'}_proxy"


def _is_exempt(host: str, port: int | None, no_proxy: str) -> bool:
    """Return whether `no_proxy` names a host: by name, domain, address or network, with or without a port."""
    name = host.lower().strip("[]").rstrip(".")
    return any(_matches(entry.lower(), name, port) for entry in re.split(r"[\s,]+", no_proxy) if entry)


def _matches(entry: str, host: str, port: int | None) -> bool:
    if entry == "*":
        return True
    entry = entry.rpartition("://")[2]
    try:
        return ip_address(host) in ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass  # one of them is a name, or the entry has a port
    try:
        parts = urlsplit(f"//{entry}")
        name, only = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.path.strip("/"):  # as of a network with too many bits
        return False
    name = name.removeprefix("*").strip(".")
    return bool(name) and only in (None, port) and (host == name or host.endswith(f".{name}"))


def named_certificates(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the variable that names the certificates to trust, and its value; None if none is set.

    Raises ConfigError for a variable that names no file and no folder.
    """
    named = [(name, environ[name]) for name in CERTIFICATE_VARIABLES if environ.get(name)]
    for name, value in named:
        if not any(Path(part).is_dir() for part in value.split(os.pathsep)) and not Path(value).is_file():
            raise ConfigError(f"{name}: {value}: no such file or folder; name a PEM file, or unset it")
    return named[0] if named else None


def trusting(variable: str, value: str) -> ssl.SSLContext:
    """Return a context that trusts only the certificates of a PEM file or of folders.

    Raises ConfigError that names the variable and its value.
    """
    where = f"{variable}: {value}"
    if Path(value).is_file():
        try:
            return ssl.create_default_context(cafile=value)
        except ssl.SSLError:
            raise ConfigError(f"{where}: no certificate in it; it must be a PEM file") from None
        except OSError as error:
            raise unreadable(where, error) from None
    folders = [Path(folder) for folder in value.split(os.pathsep) if Path(folder).is_dir()]
    if not any(_HASHED.fullmatch(path.name) for folder in folders for path in folder.iterdir()):
        raise ConfigError(f"{where}: no certificate named by its hash; run `openssl rehash` on the folder")
    return ssl.create_default_context(capath=value)


def unreadable(where: str, error: OSError) -> ConfigError:
    """Return the error for certificates that cannot be read from somewhere, or not be used."""
    why = error.strerror or error
    # The module `ssl` opens that file with every set of certificates.
    if error.filename and error.filename == os.environ.get("SSLKEYLOGFILE"):
        return ConfigError(f"SSLKEYLOGFILE: {error.filename}: cannot be written: {why}; unset it")
    return ConfigError(f"{where}: cannot be read: {why}")


_NOT_NOW = "; the server needs a new certificate, unless the clock of this machine is wrong"
_TLS_REMEDIES = (
    ("certificate has expired", _NOT_NOW),
    ("certificate is not yet valid", _NOT_NOW),
    ("certificate is not valid for", "; the address must be one that the certificate names"),
    ("WRONG_VERSION_NUMBER", "; what answers there speaks no TLS: is it http, or another port?"),
    ("CERTIFICATE_REQUIRED", "; certificates of clients are not supported: use a proxy that has one"),
)


def tls_remedy(cause: str, environ: Mapping[str, str]) -> str:
    """Return what to do about an error of TLS; "" if nothing is known, or it is no such error."""
    for words, remedy in _TLS_REMEDIES:
        if words in cause:
            return remedy
    if "CERTIFICATE_VERIFY_FAILED" not in cause:
        return ""
    named = named_certificates(environ)
    if named:
        return f"; only the certificates of {named[0]} ({named[1]}) are trusted"
    return "; if an authority of your own has signed it, name its PEM file in SSL_CERT_FILE"
