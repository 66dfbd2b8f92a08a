"""Keys of SimpleTuner's data backends: which are converted, which have no effect here, which have no counterpart.

Reference:
    SimpleTuner, documentation/DATALOADER.md and documentation/HUGGINGFACE_DATASETS.md.
"""

from __future__ import annotations

# fmt: off
UNDERSTOOD = frozenset((
    "id", "type", "dataset_type", "disabled", "disable", "default", "cache_dir", "text_embeds", "image_embeds",
    "conditioning_data", "conditioning_type", "source_dataset_id", "instance_data_dir", "aws_bucket_name",
    "aws_data_prefix", "aws_endpoint_url", "aws_region_name", "aws_access_key_id", "aws_secret_access_key",
    "aws_session_token", "csv_file", "csv_cache_dir", "csv_caption_column", "csv_url_column", "dataset_name",
    "split", "revision", "image_column", "caption_column", "huggingface", "caption_strategy", "instance_prompt",
    "only_instance_prompt", "parquet", "jsonl", "crop", "crop_style", "crop_aspect", "crop_aspect_buckets",
    "resolution", "resolution_type", "minimum_image_size", "maximum_image_size", "target_downsample_size",
    "minimum_aspect_ratio", "maximum_aspect_ratio", "max_upscale_threshold", "video", "probability", "repeats",
    "start_epoch", "end_epoch", "start_step", "end_step", "cache_dir_vae", "vae_cache_ondemand", "vae_cache_disable",
    "text_cache_ondemand", "text_encoder_batch_size",
))
# fmt: on
"""Keys that are converted, each where it belongs."""

NO_EFFECT = {
    "skip_file_discovery": "an index looks at what has changed and reads nothing else",
    "preserve_data_backend_cache": "an index looks at what has changed and reads nothing else",
    "metadata_update_interval": "an index is built once, at the start",
    "metadata_backend": "sizes come from the images' own headers, read once",
    "hash_filenames": "entries of a cache go by a hash of their content",
    "write_batch_size": "a cache writes files of one size (shard_bytes)",
    "vae_cache_clear_each_epoch": "entries go by content and settings and cannot go stale; random crops are not cached",
    "memory_filesystem_path": "entries are memory-mapped: the system keeps in memory what is used",
    "memory_filesystem_size": "entries are memory-mapped: the system keeps in memory what is used",
    "memory_filesystem_sudo": "entries are memory-mapped: the system keeps in memory what is used",
    "num_proc": "filters are pushed down to the files",
    "default": "it marks where captions of validation prompts go, for text_embeds only",
}
"""Keys that are told and left out: what they switch does not exist here, or is always so."""

_CAPTIONS = "captions are taken as they are; write them so, or say it in a table (caption_strategy='parquet')"
_TRAINING = "it is about training, not about data"
_DELETES = "nothing is ever deleted; what does not fit is left out and counted"
_VISION = "embeddings of images for conditioning are not cached"
REFUSED = {
    "prepend_instance_prompt": _CAPTIONS,
    "disable_multiline_split": "each line of a text is one caption",
    "caption_filter_list": _CAPTIONS,
    "text_cache_disable": "embeddings are stored where they are made: give true to text_cache_ondemand alone",
    "is_regularisation_data": _TRAINING,
    "is_regularization_data": _TRAINING,
    "slider_strength": _TRAINING,
    "timestep_sampling_offset": _TRAINING,
    "delete_unwanted_images": _DELETES,
    "delete_problematic_images": _DELETES,
    "delete_nsfw_images": _DELETES,
    "max_num_samples": "a part of a source is a table of its rows: give that",
    "streaming": "a stream has no exact order; this needs HuggingFaceStream, by hand",
    "conditioning_image_embeds": _VISION,
    "cache_dir_conditioning_image_embeds": _VISION,
    "conditioning_image_embed_batch_size": _VISION,
    "s2v_datasets": "there is no audio",
    "source": "webshart is not read: give the shards to WebDatasetSource, by hand",
    "metadata": "webshart is not read: give the shards to WebDatasetSource, by hand",
    "bbox_column": "boxes are not read",
}
"""Keys without a counterpart: refused unless they are off."""

REFUSED_BLOCKS = {
    "caption_shuffle": _CAPTIONS,
    "grounding": "boxes and masks of entities are not read",
    "conditioning": "conditioning images are not made here: make them once, and name them as a conditioning backend",
    "audio": "there is no audio",
    "webshart": "webshart is not read: give the shards to WebDatasetSource, by hand",
    "config": "only image and video datasets are read",
}
"""The same of whole objects."""
