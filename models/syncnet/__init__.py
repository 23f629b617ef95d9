"""The sync expert of GeneFace (Ye et al., arXiv 2301.13430): whether a mouth and a sound belong together, from its landmarks.

After SyncNet (Chung and Zisserman, "Out of time", 2016). Motion and PostNet learn from it, frozen; judges ask it.
"The release" is the authors' code, yerfor/GeneFace at 15ff4e5.
"""
