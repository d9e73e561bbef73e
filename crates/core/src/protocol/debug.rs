//! Debugging fields of a response: server and requester, in development.

use serde::Serialize;
use serde_json::Value;

/// The field `serverInformation`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerInformation<'a> {
    /// The application's version.
    pub api_version: &'a str,
    /// Unix time in milliseconds.
    pub current_time: u64,
    /// How long the request took, in milliseconds.
    pub request_duration: u64,
    /// The application's name.
    pub server_name: &'a str,
}

/// The field `requesterInformation`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequesterInformation<'a> {
    /// Ties the calls and sockets of one browser together.
    pub fingerprint: &'a str,
    /// Names the request among those of its browser.
    pub id: &'a str,
    /// The request's id, as in `x-request-id`.
    pub message_id: &'a str,
    /// The parameters that were read, with secrets hidden.
    pub received_params: &'a Value,
    /// The client's address.
    #[serde(rename = "remoteIP")]
    pub remote_ip: &'a str,
}

/// Encodes both as the fields of a JSON object, without its braces, to be spliced onto an answer.
pub fn debug_fields(server: &ServerInformation<'_>, requester: &RequesterInformation<'_>) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct DebugFields<'a> {
        server_information: &'a ServerInformation<'a>,
        requester_information: &'a RequesterInformation<'a>,
    }
    let fields = DebugFields { server_information: server, requester_information: requester };
    let object = serde_json::to_string(&fields).expect("strings, numbers and JSON are always JSON");
    object[1..object.len() - 1].to_owned()
}
