"""What the tolerances leave to a device: choices that it may decide, and how far an answer moves.

near_ties         choices that tolerances could have decided, found from the rows of a product
one_product       what is chosen from, found backwards to one claimed product
several_products  choices that follow from several products, or lie in another block
leeway            how far the columns of a claimed product may be moved; `elementwise`: on the way
displaced         values with how far a device may move them, and what equations make of both
easiest_flip      what is turned most easily of a choice; `closest`: of a row
lineage           from which claims values follow, and which choices are made from them
steering, warn    which choices a device may steer, and how a report or a warning tells of them
corridor          how far an answer may be moved; `relaxed`: booleans and integers as real numbers
"""
