"""The kernels' tests are collected where the kernels can be built; what must hold elsewhere is in test_build.py."""

from ayllu.native.build import missing, missing_vectors

collect_ignore = [] if missing() is None else ["test_attention.py", "test_head.py", "test_linear.py", "test_resume.py",
                                               "test_trainee.py"]
collect_ignore += [] if missing_vectors() is None else ["test_paged.py", "test_pointwise.py", "test_draw.py",
                                                        "test_step.py"]
