"""GeneFace's second stage (Ye et al., arXiv 2301.13430): any voice's motion, moved into the domain of one person.

The generator of `models/motion` has heard thousands of people and moves like all of them. PostNet is trained against a
discriminator that knows the person's frames, with other people's voices, for which there is no true motion; what the sound
asks of the mouth is kept by a frozen sync expert, and by the little sound that does have its motion. "The release" is the
authors' code, yerfor/GeneFace at 15ff4e5; where it and the paper disagree, the release is followed. "++" is GeneFace++, whose
PostNet was never released, and whose ways at inference are known.
"""
