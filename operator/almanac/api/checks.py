"""Checks of single values that a type alone cannot express.

Each returns the value, or raises ValueError saying what to write instead.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
import zoneinfo
from datetime import UTC, datetime
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from socket import inet_aton
from urllib.parse import urlsplit

SCHEMES = ("s3", "gs", "file")

# Patterns are written for Python and for Kubernetes' RE2 alike.
URI = r"^(s3|gs)://[^/@]+(/.*)?$|^file:///.*$"
QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
ABOVE_ZERO = r"^[0.]*[1-9]"
FREQUENCY = r"^(auto|([1-9][0-9]{0,5})?(s|min|h|H|D|M|Q|Y|W(-(MON|TUE|WED|THU|FRI|SAT|SUN))?))$"
FREQUENCY_HELP = "must be s, min, H, D, W, W-SUN (weeks from Sunday on), M, Q, Y, a multiple such as 15min, or auto"
QUANTITY_HELP = "must be an amount such as 512Mi, 4Gi or 1.5Gi, above zero"
URI_WITHOUT_SLASHES = r"^(s3a?|s3n|gs|file|https?):"
UNPADDED = r"^\S([\s\S]*\S)?$"
ENDPOINT = r"^(?i:https?)://([^\s/@?#:\[\]]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?(/[^\s?#@]*)?$"
ENDPOINT_HELP = "must be a URL such as https://minio.example.com:9000"
TIME_ZONE = r"^[A-Za-z0-9_+/-]+$"
TIME_ZONE_HELP = "must be a time zone such as UTC or Europe/Berlin"
HOST = r"^[^\s/@?#]*$"
NUMERIC = r"^(text|decimal\(([1-9]|[1-6][0-9]|7[0-6]), ?([0-9]|[1-6][0-9]|7[0-6])\))$"
NUMERIC_HELP = "must be text, or decimal(precision, scale) with a precision of at most 76, e.g. decimal(38, 9)"
OBJECT_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
OBJECT_NAME_HELP = "must be lower-case letters, digits, dots and hyphens, and start and end with a letter or digit"

SPARK_SIZES = {
    r"driver\.(cores|memory|memoryOverhead|memoryOverheadFactor)": "spec.spark.driver",
    r"executor\.(instances|cores|memory|memoryOverhead|memoryOverheadFactor)": "spec.spark.executors",
    r"dynamicAllocation\.(enabled|minExecutors|maxExecutors|initialExecutors)": "spec.spark.executors",
}
"""Settings of Spark's, after `spark.`, that a field of the job has, and which."""
SPARK_OURS = (
    r"^spark\.("
    + "|".join(
        (
            *SPARK_SIZES,
            *(r"master", r"submit\..*", r"remote", r"connect\..*", r"app\.id", r"authenticate(\..*)?"),
            *(r"driver\.(host|bindAddress|port|blockManager\.port)", r"blockManager\.port", r"ui\.(enabled|port)"),
        )
    )
    + r")$"
)
"""What the operator sets itself."""
SPARK_PODS = r"^spark\.kubernetes\."
SPARK_TUNING = (
    r"^spark\.kubernetes\.("
    r"allocation\.(batch\.(size|delay)|maxPendingPods|maxPendingPodsPerRp|maximum)"
    r"|dynamicAllocation\.deleteGracePeriod|local\.dirs\.tmpfs"
    r"|(driver|executor)\.(request|limit)\.cores"
    r"|executor\.(deleteOnTermination|terminationGracePeriodSeconds|apiPollingInterval"
    r"|eventProcessingInterval|missingPodDetectDelta|minTasksPerExecutorBeforeRolling|roll(Interval|Policy)"
    r"|resize(Factor|Interval|Threshold))"
    r")$"
)
"""Of what Spark has to say about pods, what is left to the job: the rest would lead around the rules for its pods."""

_MACROS = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CRON_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)

_BLANKS = r"\s+"


def _cron_pattern() -> str:
    """Five fields, or a macro. That a range goes upwards is more than a pattern can say."""
    numbers = ("0*[1-5]?[0-9]", "0*(1?[0-9]|2[0-3])", "0*([1-9]|[12][0-9]|3[01])", "0*([1-9]|1[0-2])", "0*[0-7]")
    fields = []
    for number, (*_, words) in zip(numbers, _CRON_FIELDS, strict=True):
        one = "|".join((number, *((f"(?i:{'|'.join(words)})",) if words else ())))
        part = rf"(\*|\?|({one})(-({one}))?)(/0*[1-9][0-9]?)?"
        fields.append(f"{part}(,{part})*")
    macros = "|".join(one.removeprefix("@") for one in _MACROS)
    return rf"^\s*(@({macros})|{_BLANKS.join(fields)})?\s*$"


CRON = _cron_pattern()


def uri(value: str) -> str:
    """`s3://bucket/key`, `gs://bucket/key`, `file:///path` or a bare path."""
    if not value.strip() or value != value.strip():
        raise ValueError("must be a location without blanks around it, e.g. s3://bucket/folder")
    scheme, separator, rest = value.partition("://")
    if not separator:
        if re.match(URI_WITHOUT_SLASHES, value):
            raise ValueError(f"must have two slashes after the colon: {value.split(':')[0]}://...")
        return value
    if scheme in ("s3a", "s3n"):
        raise ValueError(f"must start with s3:// instead of {scheme}://")
    if scheme not in SCHEMES:
        raise ValueError("must start with s3://, gs:// or file://, or be a path")
    if scheme == "file":
        if not rest.startswith("/"):
            raise ValueError("must have three slashes, file:///path: a path starts at the root")
        return value
    bucket = rest.split("/", 1)[0]
    if "@" in bucket:
        raise ValueError("must not hold credentials: put them into the Secret that storage.secretName names")
    if not bucket:
        raise ValueError(f"must name a bucket: {scheme}://bucket/folder")
    return value


def place(value: str) -> tuple[str, str]:
    """A location as (store, normal path), so that two of them can be compared. Paths that are not absolute stay so."""
    scheme, separator, rest = value.partition("://")
    if not separator:
        return "file", posixpath.normpath(value)
    if scheme == "file":
        return "file", posixpath.normpath(rest)
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", posixpath.normpath(f"/{key}")


def is_inside(inner: str, outer: str) -> bool:
    """Whether the location `inner` is `outer` itself or lies below it."""
    (inner_store, inner_path), (outer_store, outer_path) = place(inner), place(outer)
    below = f"{inner_path}/".startswith("/" if outer_path == "/" else f"{outer_path}/")
    return inner_store == outer_store and (below or (outer_path == "." and not inner_path.startswith(("/", ".."))))


def endpoint(value: str) -> str:
    """Empty, or an http or https URL without credentials, query and fragment."""
    if value and "@" in value:
        raise ValueError("must not hold credentials: put them into the Secret that storage.secretName names")
    if value and not (re.fullmatch(ENDPOINT, value) and _has_host_and_port(value)):
        raise ValueError(ENDPOINT_HELP)
    if value and _is_metadata(urlsplit(value).hostname or ""):
        raise ValueError("must be a store: this is where a cloud tells its machines their credentials")
    return value


def _has_host_and_port(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # an address that is none, or a port above 65535
        return False


_METADATA = (
    *(IPv4Network("169.254.0.0/16"), IPv4Network("100.100.100.200/32"), IPv4Network("168.63.129.16/32")),
    *(IPv6Network("fe80::/10"), IPv6Network("fd00:ec2::/32"), IPv6Network("fd20:ce::/32")),
)
"""Link-local addresses, and others of clouds' metadata: Alibaba, Azure, AWS, Google."""
_METADATA_NAMES = {
    *("metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"),
    *("metadata.tencentyun.com", "metadata.platformequinix.com"),
}


def _is_metadata(host: str) -> bool:
    """Whether a host is where a cloud's machines ask for their credentials, in any form that resolvers take.

    A name of somebody's own that leads there is not seen: a network policy is what stops it.
    """
    host = unicodedata.normalize("NFKC", host).replace("\u3002", ".").rstrip(".").partition("%")[0].lower()
    address = _address(host)
    if isinstance(address, IPv6Address):
        within = address.ipv4_mapped or address.sixtofour
        address = within or (IPv4Address(int(address) & 0xFFFFFFFF) if _holds(address) else address)
    inside = address is not None and any(address in one for one in _METADATA if one.version == address.version)
    return inside or host in _METADATA_NAMES


def _holds(address: IPv6Address) -> bool:
    """Whether an IPv4 address is translated (NAT64), or written the old way (::169.254.169.254)."""
    return address in IPv6Network("64:ff9b::/96") or int(address) >> 32 == 0


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is, written in parts, as one number, or with numbers in other bases, as C reads them."""
    try:
        return IPv6Address(host) if ":" in host else IPv4Address(inet_aton(host))
    except (OSError, ValueError):
        return None


def quantity(value: str) -> str:
    """An amount of a resource, above zero, as Kubernetes writes it."""
    if not re.fullmatch(QUANTITY, value) or not re.match(ABOVE_ZERO, value):
        raise ValueError(QUANTITY_HELP)
    return value


def amount(value: str) -> int:
    """A quantity as a whole number, e.g. of bytes: 1.5Gi is 1610612736."""
    match = re.fullmatch(r"([0-9.]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?", value)
    if match is None:
        raise ValueError(QUANTITY_HELP)
    number, unit = Decimal(match[1]), match[2] or ""
    if unit in _UNITS:
        return int(number * _UNITS[unit])
    return int(number.scaleb(int(unit[1:])))


_UNITS = {
    **{f"{letter}i": Decimal(1024**power) for power, letter in enumerate("KMGTPE", 1)},
    **{letter: Decimal(1000**power) for power, letter in enumerate("kMGTPE", 1)},
    "": Decimal(1),
    "m": Decimal("1e-3"),
    "u": Decimal("1e-6"),
    "n": Decimal("1e-9"),
}


def spark_setting(name: str) -> str:
    """The name of a setting of Spark's that a job may make."""
    if not name.startswith("spark."):
        raise ValueError("must start with `spark.`")
    if re.fullmatch(SPARK_OURS, name):
        field = next((field for part, field in SPARK_SIZES.items() if re.fullmatch(rf"spark\.{part}", name)), None)
        raise ValueError(f"cannot be set: write {field}" if field else "cannot be set: the operator does")
    if re.match(SPARK_PODS, name) and not re.fullmatch(SPARK_TUNING, name):
        raise ValueError("cannot be set: pods follow from spec.podTemplate, spec.image and spec.serviceAccountName")
    return name


def time_zone(value: str) -> str:
    """A name of the IANA time zone database; empty means that none is set."""
    if value:
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of the database, "Europe"
            raise ValueError(TIME_ZONE_HELP) from None
    return value


def cron(value: str) -> str:
    """Five fields as cron has them (names, ranges, lists, steps), or a macro such as @daily; empty: none is set."""
    if not value or value in _MACROS:
        return value
    if value.startswith("@"):
        raise ValueError(f"must be five fields such as 0 6 * * 1-5, or one of {', '.join(_MACROS)}")
    if value.startswith(("TZ=", "CRON_TZ=")):
        raise ValueError("must not set a time zone: write it into timeZone")
    fields = value.split()
    if len(fields) != len(_CRON_FIELDS):
        raise ValueError(
            f"must be five fields such as 0 6 * * 1-5 (minute, hour, day, month, weekday), has {len(fields)}"
        )
    for text, (name, low, high, names) in zip(fields, _CRON_FIELDS, strict=True):
        for part in text.split(","):
            _cron_part(part, name, low, high, names)
    return value


def _cron_part(part: str, name: str, low: int, high: int, names: tuple[str, ...]) -> None:
    match = re.fullmatch(r"(\*|\?|([a-zA-Z0-9]+)(-([a-zA-Z0-9]+))?)(/([0-9]+))?", part)
    if not match:
        raise ValueError(f"has {part!r} as its {name}: write *, a number, a range such as 1-5 or a step such as */15")
    first, last, step = match[2], match[4], match[6]
    if first is not None:
        start = _cron_number(first, name, low, high, names)
        end = start if last is None else _cron_number(last, name, low, high, names)
        if end < start:
            raise ValueError(f"has {part!r} as its {name}: a range goes from the lower to the higher")
    if step is not None and not 1 <= int(step) <= high:
        raise ValueError(f"has {part!r} as its {name}: a step is between 1 and {high}")


def _cron_number(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + low
    if not text.isdecimal() or not low <= int(text) <= high:
        also = f" or one of {', '.join(names)}" if names else ""
        raise ValueError(f"has {text!r} as its {name}: it is between {low} and {high}{also}")
    return int(text)


def moment(value: datetime) -> datetime:
    """A time that can be reckoned with, in UTC unless it says otherwise: not at the very ends of the calendar."""
    if not 1900 < value.year < 9000:
        raise ValueError("must be a time between the years 1900 and 9000")
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def is_host(value: str) -> bool:
    """Whether a string may be a host name or an address, and is no URL."""
    return re.match(HOST, value) is not None


def decimal_type(value: str) -> tuple[int, int] | None:
    """Precision and scale of `decimal(38, 18)`; None for text."""
    found = re.fullmatch(r"decimal\((\d+), ?(\d+)\)", value)
    return (int(found[1]), int(found[2])) if found else None


def numeric(value: str) -> str:
    """text, or a decimal of some precision and scale."""
    if not re.fullmatch(NUMERIC, value):
        raise ValueError(NUMERIC_HELP)
    digits = decimal_type(value)
    if digits is not None and digits[1] > digits[0]:
        raise ValueError("must have a scale that is not above its precision")
    return value


def object_name(value: str) -> str:
    """A name that Kubernetes takes for an object (a DNS subdomain)."""
    if len(value) > 253 or not re.fullmatch(OBJECT_NAME, value):
        raise ValueError(OBJECT_NAME_HELP)
    return value


def optional_object_name(value: str) -> str:
    """As `object_name`; empty means that none is set."""
    return object_name(value) if value else value


def level(value: float) -> float:
    """A level of an interval in percent; whole ones become int, so that `80.0` and `80` name the same column."""
    if not 0 < value < 100:
        raise ValueError("must be strictly between 0 and 100, in percent: 95 for a 95 % interval")
    if float(f"{value:g}") != value:
        raise ValueError("must have at most 6 digits, since columns are named by it")
    return int(value) if value == int(value) else value


def frequency(value: str) -> str:
    """A length of a period, or auto."""
    if not re.fullmatch(FREQUENCY, value):
        raise ValueError(FREQUENCY_HELP)
    return value


def constant(value: object) -> object:
    """auto, true or false."""
    if value != "auto" and not isinstance(value, bool):
        raise ValueError("must be auto, true or false")
    return value
