"""What the demo plays, in this order: `check`, `vote`, `evidence`, `receipts`, `settlement`.

A scene is a module with a generator `play`. It yields `Progress` before each piece of work, then
outcomes, and last a summary; `summary.right` says whether everything ended as it should. Scenes
print nothing: `protocols.demo.display` lists them and shows their summaries.

    scene         what scenes share: the job they are played on, and their progress
    check         honest devices and cheats, each checked by the coordinator
    vote          one job by vote, with a copycat and two colluders
    evidence      evidence of one cheat, judged by a party that shares nothing but the model
    receipts      receipts in place of traces, and audits of a part of two jobs
    settlement    the verdicts of the first scene, settled at a contract
"""
