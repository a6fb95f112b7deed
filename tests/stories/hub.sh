kdam distill --dataset hub --data_dir org/streets --teacher org/depth --student tiny-resnet --crop_height 64 --crop_width 96 --total_train_batch_size 4 --max_steps 3 --output_dir student
