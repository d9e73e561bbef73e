//! The folders of an example: those in this repository if the program is run in it, or was built in it; otherwise those
//! beside the working directory, as for an application that was deployed.

use std::env;
use std::path::{Path, PathBuf};

/// The folders of the settings and of the public files.
pub(crate) struct Folders {
    pub(crate) config: PathBuf,
    pub(crate) public: PathBuf,
}

/// Finds the folders of an example. `PHALANX_CONFIG` wins over the folder of the settings; then the public files are in
/// the folder beside that one, if there is one.
pub(crate) fn find(example: &str) -> Folders {
    let home = home(example).unwrap_or_default();
    let beside_config =
        env::var_os("PHALANX_CONFIG").and_then(|named| Some(Path::new(&named).parent()?.join("public")));
    let public = beside_config.filter(|folder| folder.is_dir()).unwrap_or_else(|| home.join("public"));
    Folders { config: home.join("config"), public }
}

/// The example's folder in the repository around the working directory, around the package that cargo runs or tests, or
/// around the program.
fn home(example: &str) -> Option<PathBuf> {
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let starts = [env::current_dir().ok(), package, env::current_exe().ok()];
    let around = |start: &PathBuf| {
        let mut homes = start.ancestors().map(|folder| folder.join("examples").join(example));
        homes.find(|home| home.join("config").is_dir())
    };
    starts.iter().flatten().find_map(around)
}
