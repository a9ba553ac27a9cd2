"""Jobs that a service starts for others: records on disk, one runner, and a process of its own for each job.

    records.py   what is asked for and how far it is      runner.py   starts, watches, cancels, resumes
    work.py      one job, in a process beside             places.py   which paths and URLs jobs may touch

Knows batch jobs, files and processes. Does not know HTTP.
"""
