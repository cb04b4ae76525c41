"""The jail: what runs in processes of its own, apart from the worker, and stands on the standard library alone.

Read in the order of time: zygote (a warm process that forks one child for each run and holds it to its limits), jail
(how the child locks itself in: privileges, limits, landlock, seccomp), program (how it then runs the program), carry
(what of its result can be carried). scratch is for whoever made the folder. Nothing here may import from outside of
this folder, for the zygote must hold nothing of the worker.
"""
