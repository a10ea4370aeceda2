"""The tasks that come with the package, one file each; ``espo_gym/<Name>-v0`` is the id of a task's environment.

========================  ==========================  ===============================================================
``addition``              Addition-v0                 sums of two numbers; ``scratchpad`` writes demonstrations
``chain``                 ChainArithmetic-v0          chains of numbers and operators
``countdown``             Countdown-v0                combine numbers to reach a target; ``countdown_answer`` finds the
                                                      expression in a completion, ``countdown_expression`` parses it
``linear_equation``       LinearEquation-v0           linear equations in one variable
``modular``               ModularArithmetic-v0        remainders of chains
``dataset``               JSONL-v0, GSM8K-v0,         problems from files and from the Hugging Face Hub;
                          MATH500-v0, AIME-v0         ``dataset_rows`` reads the rows
``retry``                 Retry-v0                    several attempts at the problems of another environment
``integer_draws``         base class                  problems made from a few uniform integers, drawn by the thousand
``integer_answer``        base class                  integer answers, which may end a compact scratch pad
========================  ==========================  ===============================================================
"""
