"""Random furnished rooms, ray-cast in NumPy.

`layout` draws a scene out of walls, `furniture` and `people`, collected by `scene`; `raycast` finds what each pixel sees;
`shading` makes the photograph.
"""
