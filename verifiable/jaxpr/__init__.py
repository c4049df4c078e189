"""Jaxprs as flat blocks, their interpreters, and what their primitives do to rounding.

blocks      the data model: blocks, equations, variables
from_jax    a JAX function as blocks; `folding`: literals that are evaluated there
graph       which equations compute and read a variable
interpret   evaluate blocks
perturb     evaluate them as another device might, with other rounding
effects     what each primitive does to rounding
pieces      functions that jump, each as a decision and a function that does not
precisions  in how many bits a product is computed
sums        how many terms are added up, and in which type
integers    which floats are integers times a power of two; `ranges`: near the ends of their types
indices     scatters whose indices differ
nan_tests   comparisons that ask whether a value is a number
"""
