"""Operations on arrays: one door for each, in one or several forms.

A door is a function. Its module has a table FORMS of named forms, which take the same arguments and give the same
result, and a table DEFAULT of the form for each platform. Where all forms are plain XLA the choice falls when a program
is lowered: a program traced on a laptop is the right one for CUDA and TPU too. Kernels, which one platform alone can
compile, are chosen by name (`implementation`).
"""
