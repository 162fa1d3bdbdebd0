//! Journal reports as Exchange Online writes them, made fast, with unique ids.

use std::fmt::Write as _;

/// What the reports look like.
#[derive(Clone, Copy, Debug)]
pub enum Size {
    /// So many octets in all, 1 to 6 recipients.
    Fixed(usize),
    /// Recipients 1 to 500, inner headers 4 to 70 kB, bodies to 200 kB, as real feeds spread.
    Mix,
    /// Small ones for a long feed: about 6 kB, 4.4 recipients on average.
    Feed,
}

impl Size {
    /// `8k`, `100k`, `mix`, `feed`.
    ///
    /// # Panics
    ///
    /// On another word.
    pub fn parse(text: &str) -> Self {
        match text {
            "mix" => Self::Mix,
            "feed" => Self::Feed,
            fixed => Self::Fixed(
                fixed
                    .strip_suffix('k')
                    .expect("8k, 100k, mix or feed")
                    .parse::<usize>()
                    .unwrap()
                    << 10,
            ),
        }
    }
}

/// A stream of reports that is the same for the same seed.
pub struct Generator {
    state: u64,
    seed: u64,
    count: u64,
    size: Size,
    filler: Vec<u8>,
    /// Where in the report [`filler`](Self::filler) goes, and how often: messages of 150 MB are not built in memory.
    pub splice: Option<(usize, usize)>,
}

impl Generator {
    /// A generator for one connection.
    pub fn new(seed: u64, size: Size) -> Self {
        let mut filler = Vec::with_capacity(1 << 18);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        while filler.len() < 1 << 18 {
            for _ in 0..76 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                filler.push(
                    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
                        [(state >> 58) as usize],
                );
            }
            filler.extend_from_slice(b"\r\n");
        }
        Self {
            state: seed | 1,
            seed,
            count: 0,
            size,
            filler,
            splice: None,
        }
    }

    /// Base64 lines, repeated where [`splice`](Self::splice) says.
    pub fn filler(&self) -> &[u8] {
        &self.filler
    }

    fn random(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) % below.max(1)
    }

    /// The next report, dot-stuffed, with its final `.` line, in place of what `out` held.
    pub fn next_into(&mut self, out: &mut Vec<u8>) {
        self.count += 1;
        let id = format!("{:08x}.{:08x}", self.seed, self.count);
        let (header, body) = match self.size {
            Size::Fixed(size) => (
                2_000.min(size / 4),
                size.saturating_sub(3_400 + 2_000.min(size / 4)),
            ),
            Size::Feed => (2_000, 2_000 + self.random(2_000) as usize),
            Size::Mix => (
                4_000 + self.random(66_000) as usize,
                1_000 + (self.random(450) * self.random(450)) as usize,
            ),
        };
        let recipients = match self.size {
            Size::Fixed(_) | Size::Feed => match self.random(100) {
                0..60 => 1 + self.random(2),
                60..95 => 2 + self.random(8),
                _ => 10 + self.random(40),
            },
            Size::Mix => match self.random(1000) {
                0..600 => 1,
                600..900 => 2 + self.random(8),
                900..990 => 10 + self.random(90),
                _ => 100 + self.random(400),
            },
        };
        let sender = self.random(20_000);
        let mut text = String::with_capacity(4_096 + recipients as usize * 48);
        let boundary = "_a1b2c3d4-0001-4001-8001-000000000001_";
        let _ = write!(
            text,
            "Content-Type: multipart/mixed;\r\n\tboundary=\"{boundary}\"\r\nSubject: Invoice {id}\r\nTo: Dana Reyes <dana@northwind.example>\r\n\
             From: Billing <user{sender}@tailspin{}.example>\r\nMIME-Version: 1.0\r\n\
             Sender:\r\n\t<MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@northwind.onmicrosoft.example>\r\n\
             Message-ID: <{id}@journal.report.generator>\r\nDate: Mon, 06 Jul 2026 08:00:01 +0000\r\nX-MS-PublicTrafficType: Email\r\nX-MS-Journal-Report:\r\n\
             X-MS-Exchange-Parent-Message-Id:\r\n\t<{id}@mail.tailspin.example>\r\nAuto-Submitted: auto-generated\r\n\
             X-MS-Exchange-Generated-Message-Source: Journal Agent\r\nX-LD-Processed: 9f8e7d6c-0000-4000-8000-000000000001,ExtAddr\r\n\
             X-OriginatorOrg: northwind.onmicrosoft.example\r\n\r\n--{boundary}\r\nContent-Type: text/plain; charset=\"us-ascii\"\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
             Sender: user{sender}@tailspin{}.example\r\nSubject: Invoice {id}\r\nMessage-Id: <{id}@mail.tailspin.example>\r\n",
            sender % 500,
            sender % 500,
        );
        for _ in 0..recipients {
            let recipient = self.random(20_000);
            let _ = write!(text, "Recipient: person{recipient}@northwind.example\r\n");
        }
        let _ = write!(
            text,
            "\r\n--{boundary}\r\nContent-Type: message/rfc822\r\n\r\nFrom: Billing <user{sender}@tailspin{}.example>\r\nTo: Dana Reyes <dana@northwind.example>\r\n\
             Subject: Invoice {id}\r\nDate: Mon, 06 Jul 2026 08:00:00 +0000\r\nMessage-ID: <{id}@mail.tailspin.example>\r\n\
             X-MS-Exchange-Organization-Network-Message-Id: {:08x}-{:04x}-4000-8000-{:012x}\r\n",
            sender % 500,
            self.seed & 0xffff_ffff,
            self.seed >> 48,
            self.count,
        );
        out.clear();
        out.extend_from_slice(text.as_bytes());
        let mut left = header;
        let mut line = 0;
        while left > 100 {
            line += 1;
            out.extend_from_slice(format!("X-Antispam-Report-{line}: ").as_bytes());
            let take = left.min(700);
            for chunk in self.filler[..take].chunks(78) {
                out.extend_from_slice(chunk.strip_suffix(b"\r\n").unwrap_or(chunk));
                out.extend_from_slice(b"\r\n\t");
            }
            out.truncate(out.len() - 3);
            out.extend_from_slice(b"\r\n");
            left = left.saturating_sub(take);
        }
        out.extend_from_slice(
            b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"in\"\r\n\r\n--in\r\nContent-Type: text/html; charset=\"utf-8\"\r\n\r\n\
              <p>Please pay at <a href=\"https://pay.tailspin.example/invoice\">the portal</a>.</p>\r\n--in\r\n\
              Content-Type: application/pdf; name=\"invoice.pdf\"\r\nContent-Disposition: attachment; filename=\"invoice.pdf\"\r\n\
              Content-Transfer-Encoding: base64\r\n\r\n",
        );
        self.splice = None;
        let body = if let Size::Fixed(size) = self.size {
            size.saturating_sub(out.len() + 70)
        } else {
            body
        };
        let mut left = body;
        if body > 4 << 20 {
            self.splice = Some((out.len(), body / self.filler.len()));
            left = body % self.filler.len();
        }
        while left > 0 {
            let take = left.min(self.filler.len());
            out.extend_from_slice(&self.filler[..take]);
            left -= take;
        }
        out.extend_from_slice(b"\r\n--in--\r\n\r\n--");
        out.extend_from_slice(boundary.as_bytes());
        out.extend_from_slice(b"--\r\n.\r\n");
    }
}
