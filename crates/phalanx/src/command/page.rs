//! A part of a list, by `--skip` and `--limit`.

use clap::{Arg, ArgMatches, Command, value_parser};

/// A part of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListPart {
    pub(crate) skip: usize,
    pub(crate) limit: usize,
}

/// Adds the options to a command.
pub(super) fn paged(command: Command) -> Command {
    let number = |name: &'static str, value: &'static str| {
        Arg::new(name).long(name).value_name("N").default_value(value).value_parser(value_parser!(u64))
    };
    command
        .arg(number("skip", "0").help("How many are left out at the beginning"))
        .arg(number("limit", "100").help("How many are printed at most"))
}

/// Reads what clap has accepted.
pub(super) fn read(matches: &ArgMatches) -> ListPart {
    let number = |id: &str| matches.get_one::<u64>(id).and_then(|number| usize::try_from(*number).ok());
    ListPart { skip: number("skip").unwrap_or(0), limit: number("limit").unwrap_or(usize::MAX) }
}
