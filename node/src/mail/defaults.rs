//! What letters say where a tenant has not written its own.

use super::Letter;

pub(super) struct Words {
    pub subject: &'static str,
    pub text: &'static str,
    pub html: &'static str,
}

pub(super) const fn of(letter: Letter) -> Words {
    match letter {
        Letter::Verification => VERIFICATION,
        Letter::NewEmail => NEW_EMAIL,
        Letter::Reset => RESET,
        Letter::Welcome => WELCOME,
        Letter::PasswordChanged => PASSWORD_CHANGED,
        Letter::EmailChanged => EMAIL_CHANGED,
    }
}

const VERIFICATION: Words = Words {
    subject: "Confirm your e-mail address for {{site}}",
    text: "Hello {{name}},\n\nconfirm that this is your e-mail address:\n\n{{link}}\n\n\
           The link is good for {{hours}} hours. If you have made no account at {{site}}, forget this letter.\n",
    html: "<p>Hello {{name}},</p>\n<p>confirm that this is your e-mail address:</p>\n\
           <p><a href=\"{{link}}\">{{link}}</a></p>\n\
           <p>The link is good for {{hours}} hours. If you have made no account at {{site}}, forget this letter.</p>\n",
};

const NEW_EMAIL: Words = Words {
    subject: "Confirm your new e-mail address for {{site}}",
    text: "Hello {{name}},\n\nyou want to use this address at {{site}} from now on. Confirm it:\n\n{{link}}\n\n\
           The link is good for {{hours}} hours. If it was not you, forget this letter.\n",
    html: "<p>Hello {{name}},</p>\n<p>you want to use this address at {{site}} from now on. Confirm it:</p>\n\
           <p><a href=\"{{link}}\">{{link}}</a></p>\n\
           <p>The link is good for {{hours}} hours. If it was not you, forget this letter.</p>\n",
};

const RESET: Words = Words {
    subject: "A new password for {{site}}",
    text: "Hello {{name}},\n\nsomebody asked for a new password for your account at {{site}}. Choose it here:\n\n\
           {{link}}\n\nThe link is good once, for {{hours}} hour. If it was not you, forget this letter: your \
           password stays as it is.\n",
    html: "<p>Hello {{name}},</p>\n<p>somebody asked for a new password for your account at {{site}}. \
           Choose it here:</p>\n<p><a href=\"{{link}}\">{{link}}</a></p>\n\
           <p>The link is good once, for {{hours}} hour. If it was not you, forget this letter: your password \
           stays as it is.</p>\n",
};

const WELCOME: Words = Words {
    subject: "Welcome to {{site}}",
    text: "Hello {{name}},\n\nwelcome to {{site}}. You sign in here:\n\n{{link}}\n",
    html: "<p>Hello {{name}},</p>\n<p>welcome to {{site}}. You sign in here:</p>\n\
           <p><a href=\"{{link}}\">{{link}}</a></p>\n",
};

const PASSWORD_CHANGED: Words = Words {
    subject: "Your password for {{site}} was changed",
    text: "Hello {{name}},\n\nthe password of your account at {{site}} was changed, and you were signed out \
           everywhere. If it was not you, ask for a new password at once, and tell those who run {{site}}.\n",
    html: "<p>Hello {{name}},</p>\n<p>the password of your account at {{site}} was changed, and you were signed \
           out everywhere. If it was not you, ask for a new password at once, and tell those who run {{site}}.</p>\n",
};

const EMAIL_CHANGED: Words = Words {
    subject: "Your e-mail address at {{site}} was changed",
    text: "Hello {{name}},\n\nyour account at {{site}} has another e-mail address now, and this one is no longer \
           used. If it was not you, tell those who run {{site}} at once.\n",
    html: "<p>Hello {{name}},</p>\n<p>your account at {{site}} has another e-mail address now, and this one is no \
           longer used. If it was not you, tell those who run {{site}} at once.</p>\n",
};
