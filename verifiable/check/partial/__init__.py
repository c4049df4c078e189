"""Audits of a part: some layers of a committed trace are opened, and tested as in a whole check.

Of a layer, an audit may also look at some rows, such as tokens.

row_test   the test of a claim in some rows
rows       which claims of a layer are tested in some rows, and what that reads
ends       which rows of the last carry the answer reads
scans      what tests of some iterations of a scan read
entry      which claims lead into the first layer, and are tested in its rows
layers     what a program's layers are, and which claims a test of some of them reads
copies     outputs that have the bytes of a claim
received   what was opened
iterations what enters the audited iterations of a scan, and their tests
measured   what is measured of the audited layers, compiled once for every plan of a size
restrict   the judge's view of a run of which only some layers are looked at
audit      `Program.layers`, `audit_plan`, `audit`
"""
