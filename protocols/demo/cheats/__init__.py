"""What dishonest devices do, by name: the cheapest ways to be paid for an answer.

    catalogue       every cheat as a named row, and `lineup`, all devices of a precision
    computations    a full run of something else: cheaper or older weights, another user's input.
                    Its trace is consistent with itself, so only the parameters and inputs that
                    were asked for can tell it from an honest one
    submissions     an honest run in which a claim, the answer or the commitment was replaced

A new cheat is a function from the job to a submission and a row in the catalogue.
"""

from protocols.demo.cheats.catalogue import CHEATS, lineup

__all__ = ["CHEATS", "lineup"]
