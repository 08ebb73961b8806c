"""The values that stand for a phantom."""

from __future__ import annotations

import dataclasses

import pytest

from marginlab.data.phantom import PHANTOMS, Cxr14Phantom, EyePacsPhantom, OaiPhantom
from marginlab.values import InputError, fingerprint, from_json, to_json


def test_a_phantom_round_trips_and_its_version_is_part_of_its_fingerprint() -> None:
    for phantom in PHANTOMS.values():
        assert from_json(to_json(phantom)) == phantom
        assert to_json(phantom)["version"] == 1
        assert fingerprint(phantom) != fingerprint(dataclasses.replace(phantom, seed=1))
    assert fingerprint(OaiPhantom(subjects=9)) != fingerprint(Cxr14Phantom(subjects=9))


@pytest.mark.parametrize("kind", [OaiPhantom, Cxr14Phantom, EyePacsPhantom])
@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"subjects": 0}, "subjects must be from 1 to"),
        ({"size": 8}, "size must be from 32 to"),
        ({"seed": -1}, "seed must be from 0 to"),
        ({"version": 2}, "draws version 1, not 2"),
    ],
)
def test_what_cannot_be_drawn_is_refused(kind: type, fields: dict[str, int], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        kind(**fields)
