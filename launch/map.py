r"""Maps Sentinel-2 scenes by a trained model: a Cloud-Optimized GeoTIFF of classes that opens in any GIS.

Examples:
  python -m launch.map --run_dir=runs/hsl --scenes=S2A_MSIL1C_20180807T102021_N0206_R065_T32UPU_20180807T123240.SAFE \
      --output=munich.tif
  python -m launch.map --run_dir=runs/hsl --scenes='2018/*.zip' --area=bavaria.geojson --output_dir=maps/bavaria \
      --num_workers=8
  python -m launch.map --run_dir=runs/eurosat --stride=8 --scenes=leipzig.tif --scene_level=L1C --output=leipzig.tif

A segmentation model predicts windows that overlap, a classifier patches from --stride to --stride pixels; probabilities
are blended. Several scenes become one map, on one grid. What has no data, a cloud or the shadow of one in every scene
has no data (255) in the map. Scenes of another processing level, pixel size or projection than the model's are refused;
the message says which flag maps them all the same.

A map that was stopped goes on when the command is called again.
"""

from __future__ import annotations

from absl import flags

from eo_keras.mapping import mapper
from eo_keras.mapping.options import MapOptions
from launch import app, options

FLAGS = flags.FLAGS


def define_flags(flag_values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    options.define(MapOptions, flag_values)


def main() -> None:
    """Runs the command."""
    job = mapper.plan_map(options.read(MapOptions, FLAGS))
    for warning in job.warnings:
        app.say(f"warning: {warning}")
    plan, card, grid = job.plan, job.card, job.plan.grid
    print(f"model:  {card.model} on {','.join(card.bands)}, {len(card.legend)} classes of {card.legend.name}")
    print(f"temperature: {job.calibration}")
    dates = sorted({str(look.scene.date) for look in plan.looks if look.scene.date})
    print(f"scenes: {len(plan.looks)}" + (f", {dates[0]}" if dates else "") + (f" to {dates[-1]}" if dates[1:] else ""))
    crs = grid.crs if len(grid.crs) < 20 else "a projection without a code"
    print(f"map:    {grid.width:,} x {grid.height:,} pixels of {grid.pixel_size:g} m, {crs}; {','.join(job.bands)}")
    windows = f"{plan.lattice.window} x {plan.lattice.window} pixels every {plan.lattice.stride}"
    print(f"blocks: {len(plan.blocks)}, windows of {windows}")
    if FLAGS.dry_run:
        print(f"dry run: would write {job.path}, which takes up to {job.bytes_needed / 1e6:,.0f} MB while it is made")
        return
    app.import_tensorflow_quietly()
    with app.ProgressBars(unit="pixels") as progress:
        report = mapper.write_map(job, progress=progress)
    for warning in report.warnings:
        app.say(f"warning: {warning}")
    if report.kept_blocks:
        print(f"resumed: {report.kept_blocks} of {len(plan.blocks)} blocks had been mapped")
    for path in report.files:
        print(f"  {path} ({path.stat().st_size / 1e6:,.2f} MB)")
    pixels, seconds = sum(map(len, plan.blocks)), report.seconds["all"]
    print(f"{report.path}: {pixels:,} pixels in {seconds:.1f} s ({pixels / seconds:,.0f} a second)")


if __name__ == "__main__":
    define_flags(FLAGS)
    app.run(main)
