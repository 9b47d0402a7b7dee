"""Selection of bands by names and composites, the same for every sensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from eo_keras.errors import BandError


def select_names(
    text: str,
    available: Iterable[str],
    *,
    known: Sequence[str],
    composites: Mapping[str, tuple[str, ...]],
    title: str,
    canonical: Callable[[str], str] = lambda text: text.strip().upper(),
) -> tuple[str, ...]:
    """Parses the name of a composite, `all`, or a comma-separated list of both bands and composites.

    Args:
        text: the selection, in upper or lower case.
        available: the bands that the data holds, in stored order; `all` means these.
        known: the sensor's bands.
        composites: its composites by name.
        title: the sensor's name in messages.
        canonical: returns the usual form of a band's name.

    Returns:
        The band names, in the order given.

    Raises:
        BandError: if a name is unknown, is given twice, or is not available.
    """
    available = tuple(available)
    stripped = text.strip()
    if stripped.lower() == "all":
        return available
    names: list[str] = []
    for part in stripped.split(","):
        names += composites.get(part.strip().upper(), (canonical(part),))
    for name in names:
        if name not in known:
            raise BandError(
                f"bands '{text}'",
                f"'{name}' is no {title} band",
                f"{''.join(f'{one}, ' for one in composites)}all or names out of {','.join(known)}",
            )
    if len(set(names)) != len(names):
        raise BandError(f"bands '{text}'", "a band is named twice", "each band once")
    missing = [name for name in names if name not in available]
    if missing:
        raise BandError(
            f"bands '{text}'",
            f"the data does not hold {','.join(missing)}",
            f"bands out of {','.join(available)}",
            "choose other bands, or build records from a source that holds them",
        )
    return tuple(names)
