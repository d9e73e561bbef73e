use super::*;

#[test]
fn each_failure_of_a_call_has_its_code_and_kind() {
    for (error, code, kind) in [
        (ApplyError::NotFound, "not_found", ErrorKind::NotFound),
        (ApplyError::UnknownMethod, "unknown_method", ErrorKind::NotFound),
        (ApplyError::Unreachable, "unreachable", ErrorKind::Unavailable),
        (ApplyError::Late, "late", ErrorKind::Timeout),
        (ApplyError::Refused(ActionError::forbidden("no")), "forbidden", ErrorKind::Forbidden),
    ] {
        let error = ActionError::from(error);
        assert_eq!((error.code(), error.kind()), (code, kind));
    }
}
