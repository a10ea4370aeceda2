"""Kills, starves, corrupts and disturbs real runs, and compares what is left with an undisturbed run.

shim.c, shim.py          counts the calls that change a file system, and disturbs the k-th of them, below Python
server.py                imports the library once and forks a process for each experiment
jobs.py                  what is disturbed: a run, its resumption, an evaluation, comparisons, a user's script
snapshot.py              what a folder holds, in a form that can be compared
crash.py                 every fault at every call of a job, and the same job again
processes.py             the real command line: signals, readers that are gone, two processes in one folder
damage.py                files that are cut, emptied or have a flipped bit, and who reads them

``python -m tests.faults --minutes 30`` does all of it and prints a table; test_faults.py does a bounded part.
Linux only, and a C compiler is needed.
"""
