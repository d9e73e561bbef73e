use phalanx::prelude::*;

#[input]
enum SignIn {
    ByPin(#[secret] String),
    ByPassword {
        #[secret]
        #[serde(alias = "pw")]
        password: String,
    },
    ByToken {
        #[secret]
        token: String,
    },
}

#[input]
struct Account {
    #[secret]
    #[serde(flatten)]
    sign_in: SignIn,
}

fn main() {}
