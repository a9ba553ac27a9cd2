"""Tables in, tables with scores out, through the one scorer.

    job.py       what to do, as plain data          run.py       a job from beginning to end
    plan.py      files and shards                   shards.py    one shard, in any process
    scoring.py   tables with scores, in memory      formats/     Parquet and others

Knows service/scoring, and pyarrow. Does not know HTTP or torch.
"""
