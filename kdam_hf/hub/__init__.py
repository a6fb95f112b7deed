"""A trained model as a repository on the Hub: card, weights, processor, code, results; one commit, no pickles.

`publication.make_publication` collects the files of a model's folder, `publish` uploads them, `write_repository` leaves them
on disk; `record.read_record` and `card.make_card` are what a card is made of.
"""
