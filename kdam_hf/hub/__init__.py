"""A trained model as a repository on the Hub: card, weights, processor, code, results; one commit, no pickles.

`make_publication` collects the files of a model's folder, `publish` uploads them, `write_repository` leaves them on disk;
`read_record` and `make_card` are what a card is made of.
"""

from kdam_hf.hub.card import make_card
from kdam_hf.hub.publication import Publication, make_publication, publish, write_repository
from kdam_hf.hub.record import read_record
from kdam_hf.hub.upload import check_repo_id, open_repository, upload

__all__ = [
    "Publication",
    "check_repo_id",
    "make_card",
    "make_publication",
    "open_repository",
    "publish",
    "read_record",
    "upload",
    "write_repository",
]
