"""Mutation testing: do the tests of a module that judges fail when the module is changed?

Each mutant is one small change of one module (`operators`), run against those of the module's own
tests (`table`) that can notice it, the shortest first, until the first that fails. Which can is
recorded once (`probes`, `record`). Mutants run in forks of processes that have collected the tests
and have computed nothing with JAX (`warm`, `forks`): changed functions get their new code in the
fork, programs that the change leaves as they are come from files (`programs`), and a mutant costs
its tests only. Of the registered tools, mutmut 3 forks a process that has run the tests, when JAX
has threads already, and leaves what stands outside of functions alone; cosmic-ray starts a process
for each mutant, five seconds of imports.

`python -m assurance.mutation --help` has the options; `specs/assurance.md` the figures.
"""
