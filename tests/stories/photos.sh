kdam distill --images photos --teacher org/depth org/segmentation --backbone_weights none --crop_height 64 --crop_width 96 --total_train_batch_size 4 --max_steps 3 --output_dir student
kdam export --model student --output_dir exported --decode
