"""The values that stand for a phantom."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from marginlab.data.phantom import PHANTOMS, Cxr14Phantom, EyePacsPhantom, OaiPhantom, delivered, deliveries
from marginlab.values import InputError, fingerprint, from_json, to_json

DOCUMENTED = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text()


def test_a_phantom_round_trips_and_its_version_is_part_of_its_fingerprint() -> None:
    for phantom in PHANTOMS.values():
        assert from_json(to_json(phantom)) == phantom
        assert to_json(phantom)["version"] == 1
        assert fingerprint(phantom) != fingerprint(dataclasses.replace(phantom, seed=1))
    assert fingerprint(OaiPhantom(subjects=9)) != fingerprint(Cxr14Phantom(subjects=9))


def test_the_usual_form_has_the_fingerprint_that_it_had_before_there_were_others() -> None:
    known = {"oai": "31baf59d4950ffb1", "cxr14": "e02ff913802d8b47", "eyepacs": "c9cd7f2af5bab02c"}
    assert {name: fingerprint(phantom) for name, phantom in PHANTOMS.items()} == known
    for phantom in PHANTOMS.values():
        others = [dataclasses.replace(phantom, **{f: n}) for f, names in phantom.forms.items() for n in names]
        assert len({fingerprint(p) for p in others}) == len(others) - len(phantom.forms) + 1
        assert all(from_json(to_json(p)) == p for p in others)


def test_forms_are_chosen_by_their_own_words() -> None:
    phantom = OaiPhantom(subjects=9)
    assert delivered(phantom, []) == phantom
    assert delivered(phantom, ["dicom-rle", "csv"]) == OaiPhantom(subjects=9, tables="csv", images="dicom-rle")
    assert deliveries(Cxr14Phantom()) == "table 2020, 2017 or 2017-units; folders nested, twelve or one"
    for other in PHANTOMS.values():
        words = [word for names in other.forms.values() for word in names]
        assert len(set(words)) == len(words) and all(delivered(other, [word]) for word in words)
    with pytest.raises(
        InputError, match="There is no delivery 'bmp' of this phantom; there are tables txt, csv or asc"
    ):
        delivered(phantom, ["bmp"])
    with pytest.raises(InputError, match="'png' and 'tiff' are both about its images: give one of them"):
        delivered(phantom, ["png", "csv", "tiff"])
    with pytest.raises(InputError, match="EyePacsPhantom.copy must be one of competition, flat, .*, not 'train'"):
        EyePacsPhantom(copy="train")


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
