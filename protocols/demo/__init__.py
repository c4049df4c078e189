"""What `verifiable demo` plays: one coordinator, honest devices, and cheats by name.

models/      a trained sentence encoder and a random one, a language model, four precisions
devices      the job, a device, and the two ways to run a job honestly
cheats       every cheat by name, and `lineup`, the devices of each precision
scenes/      check, vote, evidence, receipts and settlement: what is played, in this order
accusation   evidence with the job it is about: the file that `verifiable evidence` judges
roles        workers and coordinator of the vote
contract     the settlement contract in a chain of this process, and its committee
forgeries    every submission that this contract must refuse, with the reason
conversation a language model that answers turn by turn, for `verifiable chat`
display      tables and JSON objects for the command line; receipts_table: those of receipts;
             cells: verdicts, names and numbers as text
"""
