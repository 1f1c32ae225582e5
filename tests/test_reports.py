# SPDX-License-Identifier: Apache-2.0
"""Kinds of faults that people reported of tools like this one, tried here, mended, and each held by tests: where they are.

A kind is named by what went wrong; a test that is renamed or taken away is missed here.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

KINDS = {
    "1 two runs in one folder took each other's stages": [
        "test_run::test_a_second_run_in_one_folder_is_refused_and_takes_nothing_from_the_first",
        "test_run::test_a_killed_runs_folder_is_free_and_what_it_did_is_not_taken_for_anothers",
    ],
    "2 a principal point off the centre was ignored": [
        "test_transforms::test_the_lens_is_the_files_in_pixels_off_the_centre_with_or_without_an_angle",
        "test_transforms::test_a_frames_own_lens_goes_before_the_files",
    ],
    "3 distortion in transforms.json was ignored": ["test_transforms::test_a_bent_lens_is_undistorted_as_opencv_does"],
    "4 a scene's pictures were turned by their EXIF": [
        "test_transforms::test_pictures_lie_as_in_the_file_whatever_exif_says",
        "test_scene::test_colmap_pictures_lie_as_in_the_file_whatever_exif_says",
    ],
    "5 every second picture of images.txt was dropped": [
        "test_scene::test_every_image_of_a_text_model_is_read_with_or_without_its_line_of_points"
    ],
    "6 one pixel of alpha 254 made the whole picture the object": [
        "test_matting::test_alpha_that_is_nowhere_transparent_is_as_good_as_none",
        "test_matting::test_a_masks_alpha_that_is_nowhere_transparent_leaves_its_grey_value",
    ],
    "7 large texts kept a PNG from being read": ["test_pixels::test_a_text_of_any_size_does_not_keep_a_picture_from_being_read"],
    "8 a colour profile was skipped by its name, or for its tables": [
        "test_pixels::test_a_profile_is_obeyed_by_what_it_does_whatever_its_name",
        "test_pixels::test_a_profile_of_tables_is_obeyed",
    ],
    "9 a file name that is no UTF-8 cost the asset": ["test_cli::test_a_name_of_any_bytes_gives_an_asset"],
    "10 a splat with infinities was refused whole": [
        "test_gaussians::test_infinities_that_have_a_meaning_are_kept_and_what_cannot_be_drawn_is_left_out_with_its_count"
    ],
    "11 PLY headers with CRLF, and suffixes in capitals, were refused": [
        "test_gaussians::test_a_header_may_end_its_lines_as_any_system_does_whatever_byte_comes_behind",
        "test_viewer::test_suffixes_may_be_in_capitals",
    ],
    "12 the transparent colour of deep PNGs was lost": [
        "test_pixels::test_the_transparent_colour_is_transparent_and_no_other",
        "test_pixels::test_the_transparent_grey_value_of_few_bits_is_transparent",
    ],
    "13 folders of weights as tools leave them were refused": [
        "test_loading::test_folders_as_the_hub_and_editors_leave_them_are_read",
        "test_loading::test_a_link_that_leads_nowhere_is_called_one",
    ],
    "14 scenes as tools leave them were refused": [
        "test_transforms::test_the_lens_is_the_files_in_pixels_off_the_centre_with_or_without_an_angle",
        "test_scene::test_names_with_backslashes_are_paths",
        "test_scene::test_a_colmap_model_is_found_where_tools_put_it_with_the_pictures_beside_it_or_above",
    ],
    "15 a painted chequerboard, and white on white, gave a wrong mask without a word": [
        "test_matting::test_an_object_before_a_chequerboard_comes_with_a_warning",
        "test_matting_guided::test_an_outline_that_can_hardly_be_told_is_doubted",
    ],
    "16 hidden files were errors, other pictures were dropped in silence": [
        "test_cli::test_a_folders_hidden_files_and_folders_are_passed_over_and_other_pictures_named"
    ],
    "17 standard output that is full or ASCII, and thin pictures": [
        "test_cli::test_standard_output_that_is_full_gets_one_sentence",
        "test_cli::test_standard_output_that_knows_ascii_alone_gets_any_name",
        "test_cli::test_pictures_that_cannot_be_lifted",
    ],
    "18 a frame without its picture had the scene refused": ["test_scene::test_frames_without_a_picture_are_left_out_with_their_count"],
    "19 photographs took hours, with no size to choose and no word before": [
        "test_scene::test_pictures_are_shrunk_to_a_size_and_their_cameras_with_them",
        "test_splat_recipe::test_how_long_it_will_take_is_said_before_the_fit_and_once",
        "test_splat_recipe::test_harmonics_warm_up_and_pictures_of_each_size_show_the_same",
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_reported_fault_has_its_tests(kind):
    for place in KINDS[kind]:
        file, name = place.split("::")
        tree = ast.parse((Path(__file__).parent / f"{file}.py").read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, place
