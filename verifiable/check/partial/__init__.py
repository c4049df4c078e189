"""Audits of a part: some layers of a committed trace are opened, and tested as in a whole check.

Of a layer, an audit may also look at some rows, such as tokens.

row_test       the test of a claim in some rows
rows           which claims of a layer are tested in some rows, and what that reads
scans          layers that are iterations of a scan: what tests of some of them read
groups         layers that are groups of claims: in which rows they can be tested
before_layers  which claims lead into the first layer, and are tested in its rows
after_layers   which rows of the last carry the answer reads
layers         what a program's layers are, and which claims a test of some of them reads
copies         outputs that have the bytes of a claim
opened_rows    what was opened of a trace
iterations     what enters the audited iterations of a scan, and their tests
measured       what is measured of the audited layers, compiled once for every plan of a size
restrict       the judge's view of a run of which only some layers are looked at
audit          `Program.layers`, `audit_plan`, `audit`
"""
