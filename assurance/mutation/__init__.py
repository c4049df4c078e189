"""Mutation testing: do the tests of a module that judges fail when the module is changed?

Each mutant is one small change of one module (`operators`), run against the module's own tests
(`table`) until the first that fails. Mutants run in forks of a process that has imported all but
the library and has computed nothing with JAX (`warm`): the changed module is imported anew, and a
mutant costs its tests only. Of the registered tools, mutmut 3 forks a process that has run the
tests, when JAX has threads already, and leaves what stands outside of functions alone; cosmic-ray
starts a process for each mutant, five seconds of imports.

`python -m assurance.mutation --help` has the options; `specs/assurance.md` the figures.
"""
