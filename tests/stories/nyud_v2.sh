kdam prepare --dataset nyud_v2 --data_dir NYUDv2 --output_dir data
kdam train --config nyud_v2_smoke --data_dir data --output_dir teacher
kdam distill --config nyud_v2_smoke --data_dir data --teacher teacher --output_dir student
kdam evaluate --model student --dataset nyud_v2 --data_dir data --output scores.json
