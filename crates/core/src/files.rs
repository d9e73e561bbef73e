//! STUB
/// STUB
#[derive(Debug)]
pub struct PublicFiles;
/// STUB
#[derive(Debug)]
pub struct FileMessage {
    /// x
    pub content: String,
    /// x
    pub encoding: Option<&'static str>,
    /// x
    pub mime: String,
    /// x
    pub length: u64,
    /// x
    pub last_modified: String,
}
impl PublicFiles {
    /// x
    pub fn new(_r: Vec<std::path::PathBuf>) -> Self {
        Self
    }
    /// x
    /// # Errors
    /// x
    pub async fn read_for_socket(&self, _p: &str, _m: u64) -> Result<FileMessage, crate::ActionError> {
        Err(crate::ActionError::not_found("x"))
    }
}
