"""Shapes that issuers gave their tokens, and places that give a secret away: data of `diagnose.mask`.

A row is a kind, literals one of which the text must hold (lower case), and a pattern whose first group that took part
is the secret, or all of it. Text is searched as it stands and as bytes read as Latin-1, so words in Chinese are given
in both forms.
"""

# ruff: noqa: E501 (one shape a line)
from __future__ import annotations


def _zh(*words: str) -> str:
    """Any of the words, as text or as UTF-8 bytes read as Latin-1."""
    forms = [*words, *(w.encode().decode("latin-1") for w in words)]
    return f"(?:{'|'.join(forms)})"


_W = r"[A-Za-z0-9_-]"
_A = r"[A-Za-z0-9]"
SHAPES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("private key", ("private key",), r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)"),
    ("age key", ("age-secret-key-",), r"AGE-SECRET-KEY-1[A-Z0-9]{20,}"),
    ("ssh key", ("aaaa",), r"\bAAAA(?:B3NzaC1|C3NzaC1|E2VjZHNh)[A-Za-z0-9+/]{20,}={0,3}"),
    ("aws access key", ("akia", "asia", "abia", "acca", "aroa", "aida"), r"\b(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA)[A-Z0-9]{16}\b"),
    ("aws signature", ("x-amz-",), r"X-Amz-(?:Signature|Security-Token|Credential)[=:]\s*([^\s&\"']{8,})"),
    ("gcp api key", ("aiza",), rf"\bAIza{_W}{{35}}"),
    ("gcp oauth token", ("ya29.",), r"\bya29\.[A-Za-z0-9_.-]{20,}"),
    ("gcp client secret", ("gocspx-",), rf"\bGOCSPX-{_W}{{20,}}"),
    ("gcp signature", ("x-goog-signature",), r"X-Goog-Signature=([0-9a-fA-F]{16,})"),
    ("azure storage key", ("accountkey", "sharedaccesskey"), r"(?:AccountKey|SharedAccessKey)\s*=\s*([A-Za-z0-9+/]{20,}={0,2})"),
    ("azure sas", ("sig=",), r"[?&;]sig=([A-Za-z0-9%+/=_-]{16,})"),
    ("azure client secret", ("q~",), r"\b[A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}"),
    ("alibaba access key", ("ltai",), rf"\bLTAI{_A}{{12,24}}\b"),
    ("tencent secret id", ("akid",), rf"\bAKID{_A}{{32}}\b"),
    ("volcengine access key", ("aklt",), rf"\bAKLT{_A}{{32,}}={{0,2}}"),
    ("github token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"), rf"\b(?:gh[pousr]_{_A}{{20,}}|github_pat_\w{{20,}})"),
    ("gitlab token", ("gl",), r"\bgl(?:pat|dt|rt|cbt|ptt|ft|soat|ffct|imt|agent)-[A-Za-z0-9_.-]{16,}"),
    ("bitbucket token", ("atbb", "atatt"), rf"\b(?:ATBB{_A}{{24,}}|ATATT3[A-Za-z0-9_=-]{{40,}})"),
    ("hugging face token", ("hf_", "api_org_"), rf"\b(?:hf|api_org)_{_A}{{24,}}"),
    ("anthropic key", ("sk-ant-",), rf"\bsk-ant-{_W}{{12,}}"),
    ("openai key", ("sk-",), rf"\bsk-(?:proj-|svcacct-|admin-|or-v1-|lf-)?(?=[A-Za-z_-]*\d){_W}{{20,}}"),
    ("langsmith key", ("lsv2_",), r"\blsv2_(?:pt|sk)_[A-Za-z0-9_]{20,}"),
    ("groq key", ("gsk_",), rf"\bgsk_{_A}{{30,}}"),
    ("xai key", ("xai-",), rf"\bxai-{_A}{{40,}}"),
    ("perplexity key", ("pplx-",), rf"\bpplx-{_A}{{32,}}"),
    ("cerebras key", ("csk-",), rf"\bcsk-{_A}{{30,}}"),
    ("replicate token", ("r8_",), rf"\br8_{_A}{{30,}}"),
    ("together key", ("tgp_v1_",), rf"\btgp_v1_{_W}{{20,}}"),
    ("fireworks key", ("fw_",), rf"\bfw_{_A}{{20,}}\b"),
    ("runpod key", ("rpa_",), rf"\brpa_{_A}{{30,}}"),
    ("nvidia key", ("nvapi-",), rf"\bnvapi-{_W}{{20,}}"),
    ("wandb key", ("wandb",), r"(?:\bwandb_v\d_[A-Za-z0-9_]{20,}|(?<=wandb login )(?:--\S+ )*[0-9a-f]{40})"),
    ("kaggle key", ("kgat_", "kaggle", "username"), r"(?:\bKGAT_[0-9a-f]{32}|\"key\"\s*:\s*\"([0-9a-f]{32})\")"),
    ("docker token", ("dckr_",), rf"\bdckr_[po]at_{_W}{{16,}}"),
    ("docker auth", ('auth"',), r"\"(?:identity)?auth\"\s*:\s*\"([A-Za-z0-9+/]{8,}={0,2})\""),
    ("npm token", ("npm_", "_authtoken"), rf"(?:\bnpm_{_A}{{30,}}|_authToken\s*=\s*([^\s$]{{8,}}))"),
    ("pypi token", ("pypi-ag",), rf"\bpypi-Ag{_W}{{16,}}"),
    ("rubygems key", ("rubygems_",), r"\brubygems_[0-9a-f]{40,}"),
    ("jfrog token", ("akcp", "cmvmdgtu"), rf"\b(?:AKCp{_A}{{40,}}|cmVmdGtu{_A}{{40,}})"),
    ("vault token", ("hvs.", "hvb.", "hvr."), rf"\bhv[sbr]\.{_W}{{20,}}"),
    ("terraform token", (".atlasv1.",), rf"\b{_A}{{10,}}\.atlasv1\.{_W}{{40,}}"),
    ("grafana token", ("glsa_", "glc_"), r"\b(?:glsa|glc)_[A-Za-z0-9_+/=]{20,}"),
    ("new relic key", ("nrak-",), r"\bNRAK-[A-Z0-9]{20,}"),
    ("databricks token", ("dapi",), r"\bdapi[0-9a-f]{32}(?:-\d)?"),
    ("digitalocean token", ("do",), r"\bdo[opr]_v1_[0-9a-f]{40,}"),
    ("heroku key", ("hrku-",), rf"\bHRKU-{_W}{{30,}}"),
    ("fly token", ("fm2_", "fm1"), r"\bfm[12][ar]?_[A-Za-z0-9+/=_-]{40,}"),
    ("tailscale key", ("tskey-",), rf"\btskey-[a-z]+-{_W}{{10,}}"),
    ("linear key", ("lin_api_",), rf"\blin_(?:api|oauth)_{_A}{{30,}}"),
    ("notion token", ("ntn_",), rf"\bntn_{_A}{{40,}}"),
    ("postman key", ("pmak-",), r"\bPMAK-[0-9a-f]{20,}-[0-9a-f]{20,}"),
    ("doppler token", ("dp.",), rf"\bdp\.(?:pt|st|ct|sa|scim|audit)\.(?:\w+\.)?{_A}{{40,}}"),
    ("supabase token", ("sbp_", "sb_secret_"), r"\b(?:sbp_[0-9a-f]{40}|sb_secret_[\w-]{20,})"),
    ("planetscale token", ("pscale_",), r"\bpscale_(?:tkn|oauth|pw)_[\w.=-]{30,}"),
    ("slack token", ("xox", "xapp-"), rf"\b(?:xox[abeoprs](?:\.xox[bp])?-{_W}{{10,}}|xapp-\d-{_W}{{10,}})"),
    ("slack webhook", ("hooks.slack.com",), r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_-]{12,})"),
    ("discord webhook", ("/api/webhooks/",), r"/api/webhooks/\d{15,}/([\w-]{40,})"),
    ("discord token", ("discord",), r"\b[MNO][A-Za-z\d_-]{23,25}\.[\w-]{6}\.[\w-]{27,}"),
    ("telegram token", (":aa",), r"(?<!\d)\d{8,10}:AA[\w-]{33}(?![\w-])"),
    ("teams webhook", ("webhook.office.com",), r"webhook\.office\.com/webhookb2/([\w@/-]{30,})"),
    ("feishu webhook", ("/open-apis/bot/",), r"/open-apis/bot/v2/hook/([0-9a-f-]{20,})"),
    ("stripe key", ("k_live_", "k_test_", "whsec_"), rf"\b(?:[srp]k_(?:live|test)_{_A}{{10,}}|whsec_{_A}{{20,}})"),
    ("square token", ("sq0",), rf"\bsq0[a-z]{{3}}-{_W}{{20,}}"),
    ("shopify token", ("shp",), r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    ("sendgrid key", ("sg.",), r"\bSG\.[\w-]{16,}\.[\w-]{30,}"),
    ("mailgun key", ("key-",), r"\bkey-[0-9a-f]{32}\b"),
    ("twilio key", ("sk", "ac"), r"\b(?:SK|AC)[0-9a-f]{32}\b"),
    ("munge credential", ("munge:",), r"\bMUNGE:[A-Za-z0-9+/=]{40,}:?"),
    ("jwt", ("eyj",), r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"),
    ("url password", ("://",), r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>?#]*:([^\s/@\"'<>]+)@"),
    ("url token", ("://",), r"\bhttps?://([A-Za-z0-9_-]{20,})@"),
    ("authorization header", ("authorization",), r"authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token|digest|negotiate|apikey|aws4-hmac-sha256)\s+)?([^\s\"'][^\"'\r\n]{3,})"),
    ("cookie", ("cookie",), r"\b(?:set-)?cookie[\"']?\s*:\s*[\"']?([^\"'\r\n]*\w=[^\"'\r\n]{4,})"),
    ("key material", (), r"(?m)^(?![0-9a-fA-F]+\s*$)(?=\S*[a-z])(?=\S*[A-Z])(?=\S*\d)[A-Za-z0-9+/]{60,76}={0,2}[ \t\r]*$"),
    # --- places: the words around say that it is a secret
    ("encoded private key", ("ls0tls1crudjti",), r"LS0tLS1CRUdJTi(?!BDRVJU|BQVUJM|BUUlVT|BYNT)[A-Za-z0-9+/]{20,}={0,2}"),
    ("secret by name", ("value",), r"name\\?[\"']?\s*[:=]\s*\\?[\"']?(?:[A-Z][A-Z0-9]*_)+(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)\b\\?[\"']?,?\s*\\?[\"']?value\\?[\"']?\s*[:=]\s*(?:\\?[\"']([^\"'\\\r\n]{6,})|([^\s\"'{},]{6,}))"),
    ("secret of a URL", ("key=", "auth=", "code=", "signature=", "secret=", "ticket=", "sign="), r"[?&#;](?:(?:\w*[_-])?(?:api|access|auth|secret)[_-]?key|key|auth|code|signature|sign|secret|ticket|hash_?key)=(?=[^\s&\"'<>]*\d)([^\s&\"'<>]{16,})"),
    ("sentry key", ("sentry",), r"://([0-9a-f]{32})(?::[0-9a-f]{32})?@"),
    ("secret in code", ("secretstr(",), r"\bSecretStr\(\s*[\"']([^\"'\r\n]{3,})[\"']"),
    ("session cookie", ("sess", "csrf", "xsrf", "connect.sid", "auth_token"), r"\b(?:j?sessionid|phpsessid|csrf_?token|_?xsrf|connect\.sid)=(?=[^\s;,&\"']*\d)([^\s;,&\"']{16,})"),
    ("cookie", ("--cookie", "-b "), r"(?:--cookie[ =]|\bcurl\b[^\n]*\s-b |(?:^|\s)-b (?=[\"']))[\"']?([\w.-]+=[^\"'\s]{4,}[^\"'\n]*)"),
    ("wandb key", ("wandb",), r"\bwandb\b[^\n]{0,60}\bkey\W{1,4}([0-9a-f]{40})\b"),
    ("vault token", ("vault",), r"\bs\.(?=[A-Za-z0-9]*\d)(?=[A-Za-z0-9]*[a-z])(?=[A-Za-z0-9]*[A-Z])[A-Za-z0-9]{24}\b"),
    ("chat webhook", ("/webhook/send?key=", "/robot/send?access_token="), r"(?:/webhook/send\?key|/robot/send\?access_token)=([\w-]{16,})"),
    ("netrc", ("password",), r"\b(?:login|account|user)\s+\S+\s+password\s+(\S{3,})"),
    ("password of a command", ("sshpass", "sudo"), r"(?:\bsshpass\s+-p\s*[\"']?([^\s\"']{3,})|\becho\s+(?:-n\s+)?[\"']?([^\s\"'|]{3,})[\"']?\s*\|\s*sudo\b|\bsudo\b[^\n]*?<<<\s*[\"']?([^\s\"']{3,}))"),
    ("password of a command", ("mysql", "mariadb"), r"\b(?:mysql\w*|mariadb\w*)\b[^\n|;]*?\s-p([^\s\"']{3,})"),
    ("password of a command", ("ipmi", "redfish", "racadm"), r"\b(?:ipmi\w*|racadm|ipmi-\w+)\b[^\n|;]*?\s-[Pp]\s*[\"']?([^\s\"']{3,})"),
    ("password of a command", ("redis", "ossutil", "snmp"), r"(?:\bredis-cli\b[^\n|;]*?\s-a\s+[\"']?([^\s\"']{3,})|\bossutil\w*\b[^\n|;]*?\s-k\s+[\"']?([^\s\"']{8,})|\bsnmp\w+\b[^\n|;]*?\s-c\s*[\"']?([^\s\"']{3,}))"),
    ("password of a command", ("curl", "wget"), r"\b(?:curl|wget)\b[^\n|;]*?\s(?:-u ?|--(?:proxy-)?user[ =])[\"']?[^\s:\"']*:([^\s\"']{3,})"),
    ("password of a command", ("auth",), r"(?m)(?:\bREDISCLI_AUTH=|(?:^|> ?)AUTH[ \t]+)[\"']?([^\s\"']{4,})[\"']?\s*$"),
    ("login of a command", ("login",), r"\b(?:docker|podman|helm registry|nerdctl|crane|oras|skopeo|az)\s+login\b[^\n|;]*?\s-p[ =]?[\"']?([^\s\"']{3,})"),
    ("connection string", ("pwd=",), r"(?:(?<=;)|(?<=; )|^)pwd=([^\s;\"'/\\]{3,})"),
    ("password", ("\u5bc6", "\u53e3", "\u4ee4", "\u51ed", "\xe5\xaf", "\xe5\x8f", "\xe4\xbb", "\xe5\x87"), rf"{_zh('密码', '口令', '密钥', '令牌', '凭据', '凭证')}[\"']?\s{{0,3}}(?:{_zh('为', '是')}\s{{0,2}})?(?:=|:|{_zh('：')})\s{{0,3}}[\"']?([!-~]{{4,}})"),
    ("password", ("\u5bc6", "\u53e3", "\xe5\xaf", "\xe5\x8f"), rf"{_zh('密码', '口令')}(?:\s{{0,3}}{_zh('为', '是')}\s{{0,3}}|\s{{1,3}})(?=[!-~]*\d)([!-~]{{6,}})"),
)  # fmt: skip

# kinds whose words are written in any case
CASELESS = frozenset([
    "authorization header", "cookie", "url password", "url token", "aws signature", "docker auth", "session cookie",
    "secret of a URL", "connection string", "netrc",
])  # fmt: skip
