"""TLS with the cluster: whom we trust, and who we are."""

import ssl
from pathlib import Path

from projector.kafka.errors import AccessError


def tls_context(
    ca_file: Path | None, cert_file: Path | None, key_file: Path | None, key_password: str | None
) -> ssl.SSLContext:
    """A context that checks the broker's certificate and host name. Files are read anew each time.

    Args:
        ca_file: certificates of the authorities to trust; None: those of the system.
        cert_file: our certificate, followed by those between it and its authority; None: we show none.
        key_file: its key; None: it stands in `cert_file`.
        key_password: what the key is locked with.

    Raises:
        AccessError: a file cannot be read, or does not hold what it should.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise AccessError(f"REPORTING_KAFKA_SSL_CA_FILE={str(ca_file)!r}: {_why(error, 'certificates')}") from None
    if cert_file is None:
        return context
    try:
        # Without a password of ours, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(cert_file, key_file, lambda: key_password or "")
    except OSError as error:
        files = f"REPORTING_KAFKA_SSL_CERT_FILE={str(cert_file)!r}"
        if key_file:
            files += f", REPORTING_KAFKA_SSL_KEY_FILE={str(key_file)!r}"
        raise AccessError(
            f"{files}: {_why(error, 'a certificate and the key that belongs to it')};"
            " a locked key needs REPORTING_KAFKA_SSL_KEY_PASSWORD"
        ) from None
    return context


def _why(error: OSError, what: str) -> str:
    if isinstance(error, ssl.SSLError):
        return f"must hold {what}, as PEM ({error.reason or 'no PEM'})"
    return f"cannot be read: {error.strerror}"
