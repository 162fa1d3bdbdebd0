//! What the made-up company is called, and what it says.

pub(crate) const FIRST_NAMES: [&str; 40] = [
    "Ana", "Bo", "Chi", "Dana", "Eve", "Farid", "Grace", "Hana", "Ivan", "Julia", "Kofi", "Lena",
    "Marco", "Nadia", "Omar", "Petra", "Quinn", "Rosa", "Sven", "Tara", "Uma", "Viktor", "Wen",
    "Xenia", "Yusuf", "Zoe", "Aldo", "Bianca", "Carlos", "Dora", "Emil", "Fatima", "Goran",
    "Helga", "Ines", "Jonas", "Katya", "Liam", "Mei", "Noor",
];

pub(crate) const LAST_NAMES: [&str; 37] = [
    "Abbott", "Berg", "Castro", "Dietz", "Eriksen", "Fischer", "Garcia", "Haddad", "Ito", "Jansen",
    "Keller", "Larsen", "Moreau", "Novak", "Okafor", "Petrov", "Quist", "Reyes", "Silva", "Tanaka",
    "Ueda", "Vargas", "Weber", "Xu", "Yilmaz", "Zhang", "Adler", "Brandt", "Costa", "Duarte",
    "Engel", "Flores", "Gruber", "Holm", "Ivanov", "Jung", "Kaur",
];

pub(crate) const DEPARTMENTS: [&str; 6] = [
    "finance",
    "engineering",
    "sales-team",
    "hr",
    "legal",
    "operations",
];

pub(crate) const PARTNERS: [(&str, &str); 12] = [
    ("Tailspin Toys", "tailspin.example"),
    ("Fabrikam", "fabrikam.example"),
    ("Adventure Works", "adventure-works.example"),
    ("Litware", "litware.example"),
    ("Proseware", "proseware.example"),
    ("Wingtip", "wingtip.example"),
    ("Alpine Ski House", "alpineski.example"),
    ("Coho Winery", "coho.example"),
    ("Lucerne Publishing", "lucerne.example"),
    ("Trey Research", "trey.example"),
    ("Humongous Insurance", "humongous.example"),
    ("Graphic Design Institute", "gdi.example"),
];

pub(crate) const NEWSLETTERS: [(&str, &str); 6] = [
    ("Logistics Weekly", "logistics-weekly.example"),
    ("The Daily Ledger", "daily-ledger.example"),
    ("Rust & Steel", "rust-and-steel.example"),
    ("Market Notes", "market-notes.example"),
    ("Café Europa", "cafe-europa.example"),
    ("Conference Radar", "conference-radar.example"),
];

pub(crate) const SUBJECTS: [&str; 40] = [
    "Invoice 4711",
    "Quarterly figures",
    "Lunch on Thursday?",
    "Minutes of the meeting",
    "Offer for the new warehouse",
    "Roadmap",
    "Contract draft, second version",
    "Travel to Lyon",
    "Réunion à 9 h — ordre du jour",
    "Delivery note 2026-118",
    "Question about the order",
    "Budget for next year",
    "Übersicht der Termine",
    "Photos from the fair",
    "Password policy",
    "New colleague in engineering",
    "Customs papers",
    "Maintenance on Saturday",
    "Feedback on the prototype",
    "Parking spaces",
    "見積もりのご依頼",
    "Schedule for the audit",
    "Change of address",
    "Order confirmation",
    "Holiday list",
    "Results of the survey",
    "Спецификация",
    "Presentation for Monday",
    "Price list",
    "Reminder: time sheets",
    "Interview on Friday",
    "Broken door on the second floor",
    "Shipping delay",
    "Training material",
    "Thank you!",
    "Keys for the office",
    "Support case 20418",
    "Draft of the press release",
    "Meeting moved to 14:00",
    "Open points",
];

pub(crate) const BODIES: [&str; 12] = [
    "Please find the papers as discussed. Let me know if anything is missing.",
    "I have looked at the figures again; the second column does not add up to what we agreed on in spring.",
    "Could you send me the current version until tomorrow noon? The customer is waiting for it.",
    "We will meet in Room Aurora. Coffee is ordered.",
    "As you know the warehouse is closed in the last week of the month, so whatever has to leave must leave before.",
    "Thank you for the quick answer. I will pass it on to our lawyers and come back to you next week.",
    "The truck is expected between eight and ten. Somebody has to sign for the goods.",
    "Attached is the draft. Comments are welcome, but please not on the layout yet.",
    "Does anybody know where the projector of the small meeting room has gone?",
    "Our terms have not changed: thirty days net, two per cent within ten days.",
    "I am out of office until Monday; in urgent cases call the front desk.",
    "The test went well. Two small things are left, both are on the list of open points.",
];

pub(crate) const DOCUMENTS: [(&str, &str); 8] = [
    ("invoice.pdf", "application/pdf"),
    (
        "offer.docx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    ),
    (
        "figures.xlsx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ),
    ("photo.jpg", "image/jpeg"),
    ("plan.png", "image/png"),
    ("Protokoll März.pdf", "application/pdf"),
    (
        "slides.pptx",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    ),
    ("archive.zip", "application/zip"),
];
