use phalanx::prelude::*;

fn main() {}

#[derive(ActionError)]
enum Wrong {
    Silent,
    #[action_error]
    Empty,
    #[action_error()]
    NoKind,
    #[action_error(message = "no kind")]
    MessageFirst,
    #[action_error(notfound, message = "a typo")]
    Typo,
    #[action_error(teapot, message = "no such kind")]
    NoSuchKind,
    #[action_error(conflict)]
    NoMessage,
    #[action_error(internal, message = "clients must not see this")]
    Leaky,
    #[action_error(conflict, code = "Not A Code", message = "a code")]
    NoCode,
    #[action_error(conflict, mesage = "a typo")]
    NoArgument,
    #[action_error(invalid_input, message = "a detail", detail("title"))]
    HalfADetail,
    #[action_error(transparent)]
    NothingInside,
    #[action_error(transparent, message = "said twice")]
    SaysMore(ActionError),
    #[action_error(conflict, message = "once")]
    #[action_error(conflict, message = "twice")]
    Twice,
    #[action_error(internal, code = "leaky")]
    LeakyCode,
    #[action_error(internal, detail("a", "b", "c"))]
    LeakyDetail,
    #[action_error(internal)]
    LeakyField(#[details] Vec<Detail>),
    #[action_error(invalid_input, message = "m", detail("a", "b", "c"))]
    TwiceDetails(#[details] Vec<Detail>),
    #[action_error(conflict, code = "once", message = "once", code = "twice")]
    TwoCodes,
    #[action_error(conflict, message = "once", message = "twice")]
    TwoMessages,
}

#[derive(ActionError)]
struct Single;

#[derive(ActionError)]
enum Nothing {}
