"""Where a dataset comes from: its terms of use, and what has to be known of its times and labels. Said on its page."""

from __future__ import annotations

from dataclasses import dataclass, replace

CHECKED = "Terms change: check them where you got the data before you use or share anything made from it."


@dataclass(frozen=True)
class Source:
    title: str
    terms: tuple[str, ...]
    notes: tuple[str, ...] = ()


EYEPACS = Source(
    "EyePACS (fundus photographs, Kaggle's Diabetic Retinopathy Detection)",
    (
        "The images are for those who accepted the rules of the competition: check the current ones at "
        "https://www.kaggle.com/c/diabetic-retinopathy-detection/rules.",
    ),
    ("There are no dates, so there are no horizons.",),
)
SOURCES: dict[str, Source] = {  # by the reader's type
    "marginlab.data.oai:OAI": Source(
        "Osteoarthritis Initiative (knee radiographs)",
        (
            "Access is given to persons who have agreed to the data access terms of the OAI at the NIMH Data Archive: "
            "check the current ones at https://nda.nih.gov/oai. Images and what identifies people stay with those persons.",
        ),
    ),
    "marginlab.data.cxr14:CXR14": Source(
        "ChestX-ray14 (chest radiographs of the NIH Clinical Center)",
        (
            "The NIH Clinical Center leaves the use unrestricted, and asks for a link to its download site, an acknowledgement "
            "of the NIH Clinical Center as provider and a citation of Wang et al., CVPR 2017: check the current terms, in the "
            "FAQ there, at https://nihcc.app.box.com/v/ChestXray-NIHCC.",
        ),
        (
            "There are no dates. Months are 12 times the difference of two ages in whole years, as published: a horizon can be "
            "wrong by almost a year, and all images of one year of age are one visit.",
        ),
    ),
    "marginlab.data.eyepacs:EyePACS": EYEPACS,
    "marginlab.data.eyepacs:EyePACSByImage": replace(EYEPACS, title=f"{EYEPACS.title}, split by image as published"),
}
OWN = Source("images of your own", ("The terms are those under which you got the images.",))
PHANTOM = Source("phantoms", ("The subjects are synthetic: the images belong to nobody.",))


def source(reader: str, phantom: str | None) -> Source:
    """Of a packed dataset, by ``reader`` and ``phantom`` of its dataset.json. A phantom keeps its dataset's notes."""
    known = SOURCES.get(reader, OWN)
    return Source(f"phantom of: {known.title}", PHANTOM.terms, known.notes) if phantom else known
