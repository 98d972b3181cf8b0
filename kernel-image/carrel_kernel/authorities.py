"""Certificate authorities that kernels trust beside the image's own, as the class of the session names them.

Programs take one file in place of what they trust otherwise, so both are written into one. It is read when the host
starts: an authority that is changed later holds from the next pod on.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

VARIABLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
"""Of OpenSSL and with it Python and httpx, of requests, of curl, of pip."""
_PLACES: Final = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
"""Of Debian and of Fedora, where OpenSSL's own default is a folder that these programs cannot use."""


def trusting(further: Path, folder: Path) -> dict[str, str]:
    """Return the variables that make programs trust the authorities of a PEM file too.

    Parameters
    ----------
    further
        The file.
    folder
        Where the file of both is written.

    Raises
    ------
    OSError, ValueError
        The file cannot be read, or holds no certificates.
    """
    text = further.read_text()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(f"{further} must hold certificates as PEM: {error}") from error
    both = folder / "authorities.pem"
    both.write_text("\n".join((*(place.read_text() for place in _own()), text)))
    return dict.fromkeys(VARIABLES, str(both))


def _own() -> list[Path]:
    """Return the file of the image's own authorities, if it has one."""
    default = ssl.get_default_verify_paths().cafile
    places = [Path(place) for place in (default, *_PLACES) if place]
    return [place for place in places if place.is_file()][:1]
