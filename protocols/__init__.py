"""Protocols that compose the primitives of `verifiable`, their demo, and the command line.

    messages/      signed messages: job, orders, commit, reveal, upload, decision
    identities     Ed25519 identities
    events         what the caller of any protocol reports
    replicated/    one job on several workers: dispatch, commit, reveal, vote, audit
    audited/       jobs that one worker each computes, audited in part
    judging        judge evidence about any job
    journal/       a durable record: a killed coordinator goes on where it was
    settlement/    the verdicts of an epoch, signed by a committee
    contracts/     the contract that stores their root, and a chain in this process
    simulation/    how often a network errs, and at what cost, under attack
    testing/       property tests of your own coordinator
    demo/          models, devices, cheats and scenes of `verifiable demo`
    cli            the command `verifiable`

The protocols send nothing and read no clock; their callers do.
"""
