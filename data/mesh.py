"""MediaPipe's face mesh: which of its 478 points is what. 468 points cover the face; the last ten are the two irises.

"Right" and "left" are the person's own, as in MediaPipe; on an unmirrored picture the right side is on the image's left.
"""

POINTS = 478

RIGHT_SIDE, LEFT_SIDE = 234, 454  # face contour at ear level
FOREHEAD, CHIN = 10, 152  # upmost and lowest point of the contour
UPPER_LIP, LOWER_LIP = 13, 14  # inner lip, middle
MOUTH_RIGHT, MOUTH_LEFT = 78, 308  # inner corners of the mouth

# Base of the nose, then the outer and inner corners of the right and of the left eye: points 33, 36, 39, 45, 42 of the 68.
STABLE_POINTS = (2, 33, 263, 133, 362)

# The contour of the face, once around, from the forehead by the person's left side.
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)

# The 68 points of the iBUG 300-W layout, which dlib and face-alignment give and DiffTalk and GeneFace read. It is the table in
# common use, with eleven points of it exchanged, each with its mirror image, for a neighbour that is nearer (by 0.015 to 0.05
# of the distance between the outer eye corners) to what dlib's predictor says, over 151 frames of six speakers.
LANDMARKS_68 = (
    *(127, 234, 93, 58, 172, 136, 149, 176, 152, 400, 378, 365, 397, 288, 323, 454, 356),  # 0–16 jaw, from the right ear
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),  # 17–26 brows
    *(168, 197, 195, 4, 75, 97, 2, 326, 305),  # 27–35 bridge and base of the nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # 36–47 eyes
    *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),  # 48–59 outer lips
    *(78, 82, 13, 312, 308, 317, 14, 87),  # 60–67 inner lips
)
