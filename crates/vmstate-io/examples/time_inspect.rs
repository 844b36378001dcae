//! Times `inspect --format json` without the process around it: opens, walks, decodes and renders each file several times and
//! prints the shortest time in microseconds and the file's name.
//!
//! ```text
//! cargo run --release -p vmstate-io --example time_inspect -- FILE…
//! ```

use std::error::Error;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use vmstate_io::{inspect, open, render};

/// How often each file is read.
const RUNS: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    for name in std::env::args().skip(1) {
        let mut shortest = Duration::MAX;
        for _ in 0..RUNS {
            let start = Instant::now();
            let mut input = open(Path::new(&name))?;
            let analysis = inspect::analyze(&mut *input, &mut [], &inspect::Options::default());
            let view = render::View::default();
            render::json::inspection(&analysis, &view, io::sink())?;
            shortest = shortest.min(start.elapsed());
        }
        println!("{} {name}", shortest.as_micros());
    }
    Ok(())
}
