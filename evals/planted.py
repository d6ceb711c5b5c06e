"""Secrets that are none, planted in logs as real ones get there, to measure what masking finds.

Every value is made from a seed when it is asked for: no file of the repository holds one. Kinds and places are
written from the issuers' formats and from how programs print them, not from the patterns of `diagnose.mask`.
"""

# ruff: noqa: E501 (one kind a line)
from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from diagnose.mask import mask, secrets

ALNUM = string.ascii_letters + string.digits
LOWER = string.ascii_lowercase + string.digits
HEX = "0123456789abcdef"
B64 = ALNUM + "+/"
URLSAFE = ALNUM + "-_"
LEAST = 8  # so many characters of a secret in a row are a leak, or all of a shorter one


@dataclass(frozen=True)
class Planted:
    """A text with a secret in it.

    Attributes:
        kind: of the secret. secret: what must not be seen, in the form that the text has it. text: the log around it.
    """

    kind: str
    secret: str
    text: str


Make = Callable[[random.Random], str]


def _word(alphabet: str, size: int) -> Make:
    def make(rng: random.Random) -> str:
        while True:  # as long random words do, it has a digit and a letter
            word = "".join(rng.choices(alphabet, k=size))
            if any(c.isdigit() for c in word) and any(c.isalpha() for c in word):
                return word

    return make


def _fixed(prefix: str, alphabet: str, size: int, suffix: str = "") -> Make:
    body = _word(alphabet, size)
    return lambda rng: prefix + body(rng) + suffix


def _one_of(*makes: Make) -> Make:
    return lambda rng: rng.choice(makes)(rng)


def _jwt(rng: random.Random) -> str:
    def part(data: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    head = part({"alg": rng.choice(["HS256", "RS256", "ES256"]), "typ": "JWT"})
    body = part({"sub": str(rng.randrange(10**9)), "exp": rng.randrange(10**9), "scope": "admin"})
    return f"{head}.{body}.{_word(URLSAFE, 43)(rng)}"


def _pem(label: str, lines: int) -> Make:
    def make(rng: random.Random) -> str:
        body = "\n".join("".join(rng.choices(B64, k=64)) for _ in range(lines))
        return f"-----BEGIN {label}-----\n{body}\n-----END {label}-----"

    return make


def _password(rng: random.Random) -> str:
    return rng.choice(
        [
            _word(ALNUM, 12)(rng), _word(ALNUM + "!#%^*-_+", 16)(rng), f"Summer{rng.randrange(1900, 2100)}!",
            f"correct-horse-{rng.randrange(100, 999)}", f"tiger{rng.randrange(10, 99)}", "swordfish", "changeme!",
            _word(LOWER, 8)(rng),
        ]
    )  # fmt: skip


def _basic(rng: random.Random) -> str:
    return base64.b64encode(f"svc{rng.randrange(99)}:{_word(ALNUM, 14)(rng)}".encode()).decode()


def _uuid(rng: random.Random) -> str:
    h = "".join(rng.choices(HEX, k=32))
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


# name of a kind: how it is made, and the lines it stands in besides the general ones
ENV = ("export {n}={s}", "{n}={s} python -m vllm.entrypoints.openai.api_server --model m", '{n}="{s}"',
       "  {n}: {s}", "      - name: {n}\n        value: {s}", "docker run --gpus all -e {n}={s} img:latest",
       '"{n}": "{s}",', "+ export {n}={s}", "environ({{'PATH': '/usr/bin', '{n}': '{s}', 'RANK': '0'}})",
       "(EngineCore_0 pid=71) INFO env {n}={s}", "set {n}={s}", "{n}='{s}'", "$env:{n} = \"{s}\"",
       "ENV {n} {s}", "{n} = {s}", "0: [1,0]<stdout>:{n}={s}")  # fmt: skip
BARE = ("INFO 11-22 09:14:03 [api.py:88] using {s} for downloads", "requests.exceptions.HTTPError: 401 for {s}",
        "error: invalid credentials ({s})", "  \"{s}\"", "args: ['serve', '{s}', '--port', '8000']",
        "curl -H 'Authorization: Bearer {s}' http://127.0.0.1:8000/v1/models", "token {s} was rejected",
        "git clone https://oauth2:{s}@git.example.com/a/b.git", "GET /v1/models?api_key={s}&x=1 HTTP/1.1\" 200",
        "\x1b[32mINFO\x1b[0m key=\x1b[36m{s}\x1b[0m")  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """How a kind of secret looks and where it stands; `named` are the variables it is given in."""

    make: Make
    places: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    bare: bool = True  # its own form gives it away anywhere


KINDS: dict[str, Kind] = {
    "aws access key id": Kind(_one_of(_fixed("AKIA", string.ascii_uppercase + "234567", 16), _fixed("ASIA", string.ascii_uppercase + "234567", 16)), named=("AWS_ACCESS_KEY_ID",)),
    "aws secret key": Kind(_word(B64, 40), ("aws_secret_access_key = {s}", '"SecretAccessKey": "{s}",', "aws configure set aws_secret_access_key {s}", "  secretKey: {s}", "fs.s3a.secret.key={s}", "spark.hadoop.fs.s3a.secret.key {s}"), ("AWS_SECRET_ACCESS_KEY", "S3_SECRET_KEY", "MINIO_SECRET_KEY", "MINIO_ROOT_PASSWORD"), bare=False),
    "aws session token": Kind(_fixed("IQoJb3JpZ2luX2Vj", B64, 200), ("aws_session_token = {s}", '"SessionToken": "{s}"', "X-Amz-Security-Token={s}&X-Amz-Expires=3600"), ("AWS_SESSION_TOKEN",), bare=False),
    "gcp api key": Kind(_fixed("AIza", URLSAFE, 35), named=("GOOGLE_API_KEY",)),
    "gcp oauth token": Kind(_fixed("ya29.", URLSAFE, 120), named=("GOOGLE_OAUTH_ACCESS_TOKEN",)),
    "gcp service account": Kind(lambda rng: _pem("PRIVATE KEY", 6)(rng).replace("\n", "\\n"), ('"private_key": "{s}\\n",', "{{'type': 'service_account', 'private_key': '{s}'}}"), bare=False),
    "azure storage key": Kind(_fixed("", B64, 86, "=="), ("DefaultEndpointsProtocol=https;AccountName=ckpt;AccountKey={s};EndpointSuffix=core.windows.net", "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=root;SharedAccessKey={s}"), ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"), bare=False),
    "azure sas": Kind(lambda rng: quote(_fixed("", B64, 43, "=")(rng), safe=""), ("GET https://ckpt.blob.core.windows.net/w/model.safetensors?sv=2024-11-04&se=2026-01-01&sp=r&sig={s} 403", "azcopy cp 'https://x.blob.core.windows.net/w?sp=r&sig={s}' ."), bare=False),
    "azure client secret": Kind(lambda rng: _word(ALNUM, 3)(rng) + "8Q~" + _word(ALNUM + "~._-", 34)(rng), ("az login --service-principal -u 1 -p {s} --tenant t", "client_secret={s}&grant_type=client_credentials"), ("AZURE_CLIENT_SECRET", "ARM_CLIENT_SECRET")),
    "github token": Kind(_one_of(_fixed("ghp_", ALNUM, 36), _fixed("gho_", ALNUM, 36), _fixed("ghs_", ALNUM, 36), _fixed("github_pat_", ALNUM + "_", 82)), named=("GITHUB_TOKEN", "GH_TOKEN")),
    "gitlab token": Kind(_one_of(_fixed("glpat-", URLSAFE, 20), _fixed("gldt-", URLSAFE, 20), _fixed("glrt-", URLSAFE, 20)), ("PRIVATE-TOKEN: {s}", "curl --header 'PRIVATE-TOKEN: {s}' https://git.example.com/api/v4"), ("GITLAB_TOKEN", "CI_JOB_TOKEN")),
    "hugging face token": Kind(_fixed("hf_", ALNUM, 34), ("vllm serve m --hf-token {s}", "Namespace(model='m', hf_token='{s}', dtype='auto')", "huggingface-cli login --token {s}", "hf auth login --token={s}", "from_pretrained('m', use_auth_token='{s}')"), ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")),
    "openai key": Kind(_one_of(_fixed("sk-", ALNUM, 48), _fixed("sk-proj-", URLSAFE, 100), _fixed("sk-svcacct-", URLSAFE, 60)), ("openai.AuthenticationError: Error code: 401 - Incorrect API key provided: {s}.", "OpenAI(api_key='{s}', base_url='http://x/v1')"), ("OPENAI_API_KEY",)),
    "anthropic key": Kind(_fixed("sk-ant-api03-", URLSAFE, 95), ("x-api-key: {s}",), ("ANTHROPIC_API_KEY",)),
    "nvidia key": Kind(_fixed("nvapi-", URLSAFE, 64), ("docker login nvcr.io -u '$oauthtoken' -p {s}", "ngc config set --api-key {s}"), ("NGC_API_KEY", "NVIDIA_API_KEY")),
    "ngc legacy key": Kind(lambda rng: base64.b64encode(f"{_word(LOWER, 26)(rng)}:{_uuid(rng)}".encode()).decode(), ("apikey = {s}", "docker login -u '$oauthtoken' --password {s} nvcr.io", "NGC_CLI_API_KEY={s}"), ("NGC_API_KEY", "NGC_CLI_API_KEY"), bare=False),
    "slack token": Kind(_one_of(lambda rng: f"xoxb-{rng.randrange(10**11, 10**12)}-{rng.randrange(10**12, 10**13)}-{_word(ALNUM, 24)(rng)}", lambda rng: f"xapp-1-A0{_word(string.ascii_uppercase + string.digits, 9)(rng)}-{rng.randrange(10**12)}-{_word(HEX, 64)(rng)}"), named=("SLACK_BOT_TOKEN",)),
    "slack webhook": Kind(lambda rng: f"T{_word(string.ascii_uppercase + string.digits, 10)(rng)}/B{_word(string.ascii_uppercase + string.digits, 10)(rng)}/{_word(ALNUM, 24)(rng)}", ("POST https://hooks.slack.com/services/{s} 200", "slack_url: https://hooks.slack.com/services/{s}", "alertmanager: api_url 'https://hooks.slack.com/services/{s}'"), bare=False),
    "chat webhook": Kind(lambda rng: _uuid(rng), ("https://open.feishu.cn/open-apis/bot/v2/hook/{s}", "https://open.larksuite.com/open-apis/bot/v2/hook/{s}", "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={s}", "POST https://oapi.dingtalk.com/robot/send?access_token={s}"), bare=False),
    "discord webhook": Kind(_word(URLSAFE, 68), ("https://discord.com/api/webhooks/1187654321098765432/{s}", "webhook: https://discordapp.com/api/webhooks/987654321098765432/{s}"), bare=False),
    "telegram token": Kind(lambda rng: f"{rng.randrange(10**9, 10**10)}:AA{_word(URLSAFE, 33)(rng)}", ("POST https://api.telegram.org/bot{s}/sendMessage",), ("TELEGRAM_TOKEN",)),
    "jwt": Kind(_jwt, ("Cookie: jwt={s}", "kubectl --token={s} get pods"), ("ACCESS_TOKEN",)),
    "basic auth url": Kind(_word(ALNUM, 14), ("Looking in indexes: https://bob:{s}@pypi.example.com/simple", "http_proxy=http://bob:{s}@proxy.example.com:3128", "fatal: unable to access 'https://bob:{s}@git.example.com/x/'", "helm repo add x https://u:{s}@charts.example.com", "ftp://anonymous:{s}@files.example.com/w"), bare=False),
    "bearer header": Kind(_word(URLSAFE, 40), ("> Authorization: Bearer {s}", "'Authorization': 'Bearer {s}'", "headers={{\"authorization\": \"bearer {s}\"}}", "grpc metadata authorization=Bearer {s}", "authorization: token {s}", "-H \"Authorization: Bearer {s}\" \\", "Proxy-Authorization: Bearer {s}", "b'authorization', b'Bearer {s}'"), bare=False),
    "basic header": Kind(_basic, ("Authorization: Basic {s}", "< Proxy-Authorization: Basic {s}", "-H 'authorization: basic {s}'", "basic {s}"), bare=False),
    "custom header": Kind(_word(ALNUM, 32), ("X-API-Key: {s}", "x-api-key={s}", "'api-key': '{s}'", "X-Auth-Token: {s}", "X-Vault-Token: {s}", "Ocp-Apim-Subscription-Key: {s}", "-H 'X-Goog-Api-Key: {s}'", "x-functions-key: {s}", "X-Subject-Token: {s}"), bare=False),
    "rsa private key": Kind(_pem("RSA PRIVATE KEY", 8), ("{s}", "cat id_rsa:\n{s}\ndone", "ssh_key: |\n{s}")),
    "openssh private key": Kind(_pem("OPENSSH PRIVATE KEY", 6), ("{s}", "$ cat ~/.ssh/id_ed25519\n{s}\n$ ls")),
    "pem in json": Kind(lambda rng: _pem("EC PRIVATE KEY", 3)(rng).replace("\n", "\\n"), ('{{"tls_key": "{s}"}}', "TLS_KEY='{s}'"), bare=False),
    "database url": Kind(_word(ALNUM + "_-", 16), ("postgresql://mlflow:{s}@db.example.com:5432/mlflow", "sqlalchemy.url = mysql+pymysql://root:{s}@10.0.0.5/x", "mongodb+srv://u:{s}@c0.example.net/?retryWrites=true", "redis://:{s}@10.0.0.9:6379/0", "amqp://rabbit:{s}@mq:5672//", "DATABASE_URL=postgres://u:{s}@db/x", "jdbc:postgresql://db:5432/x?user=u&password={s}", "clickhouse://default:{s}@ch:9000"), bare=False),
    "connection string": Kind(_password, ("Server=tcp:db,1433;User ID=sa;Password={s};Encrypt=true", "host=db user=u password={s} dbname=x", "User Id=app;Pwd={s};", "dsn='host=db password={s} port=5432'"), bare=False),
    "docker auth": Kind(_basic, ('{{"auths": {{"nvcr.io": {{"auth": "{s}"}}}}}}', '"auth": "{s}"', '"auths":{{"r.example.com":{{"username":"u","auth":"{s}","email":"x"}}}}'), bare=False),
    "kubernetes token": Kind(_jwt, ("  token: {s}", "users:\n- name: admin\n  user:\n    token: {s}", "serviceaccount token: {s}"), bare=False),
    "kubeconfig key": Kind(lambda rng: base64.b64encode(_pem("RSA PRIVATE KEY", 5)(rng).encode()).decode(), ("    client-key-data: {s}", '"client-key-data": "{s}"', "tls.key: {s}"), bare=False),
    "kubernetes secret": Kind(lambda rng: base64.b64encode(_word(ALNUM, 15)(rng).encode()).decode(), ("apiVersion: v1\nkind: Secret\nmetadata:\n  name: x\ndata:\n  hf: {s}\ntype: Opaque", "apiVersion: v1\ndata:\n  hub: {s}\nkind: Secret\nmetadata:\n  name: x", "kind: Secret\nstringData:\n  any: {s}", '{{"apiVersion":"v1","kind":"Secret","data":{{"hub":"{s}"}}}}'), bare=False),
    "kubeadm token": Kind(lambda rng: f"{_word(LOWER, 6)(rng)}.{_word(LOWER, 16)(rng)}", ("kubeadm join 10.0.0.1:6443 --token {s} --discovery-token-ca-cert-hash sha256:" + "ab" * 32, "K3S_TOKEN={s}"), bare=False),
    "password assignment": Kind(_password, ("DB_PASSWORD={s}", "MYSQL_ROOT_PASSWORD: {s}", "password={s}", "password: {s}", "'password': '{s}'", '"passwd": "{s}"', "PGPASSWORD={s} psql -h db", "sshpass -p {s} ssh root@node2", "mysql -u root -p{s} -h db", "smtp_pass = {s}", "--password {s}", "--password={s}", "-Dpassword={s}", "sudo -S <<< {s}", "echo {s} | sudo -S nvidia-smi -pm 1", "ipmitool -I lanplus -H 10.0.0.3 -U admin -P {s} power status", "login: root password: {s}", "curl -u admin:{s} http://127.0.0.1:3000/api"), bare=False),
    "chinese label": Kind(_password, ("密码: {s}", "密码：{s}", "用户名 root 密码 {s}", "口令：{s}", "登录密码是 {s}", "密钥: {s}", "令牌：{s}", "root 密码={s}", "管理员密码为：{s}", "初始密码：{s}，请尽快修改"), bare=False),
    "command-line flag": Kind(_word(ALNUM, 20), ("vllm serve m --api-key {s} --port 8000", "python -m sglang.launch_server --api-key={s}", "--admin-api-key {s}", "tool --token {s} run", "x --auth-token={s}", "ray job submit --secret {s}", "['vllm', 'serve', 'm', '--api-key', '{s}']", '"args": ["--api-key", "{s}", "--tp", "8"]', "- --api-key\n- {s}\n- --port", "- --api-key={s}", "wget --http-password={s} http://x/y", "--client-secret {s}", "trtllm-serve m --api_key {s}"), bare=False),
    "json field": Kind(_word(ALNUM, 24), ('{{"api_key": "{s}", "model": "m"}}', '{{"token":"{s}"}}', '"access_token": "{s}", "expires_in": 3600', '"refreshToken":"{s}"', '"clientSecret": "{s}"', "{{'secret': '{s}'}}", '{{\\"api_key\\": \\"{s}\\"}}', '"apiKey":"{s}"', '"authToken" : "{s}"', "api_key='{s}'", "SecretStr('{s}')", '"accessKeySecret": "{s}"', '"SecretKey":"{s}"'), bare=False),
    "yaml field": Kind(_word(ALNUM, 24), ("api_key: {s}", "  apiKey: {s}", "auth:\n  token: {s}", "client_secret: '{s}'", "  secret_access_key: \"{s}\"", "accessToken: {s}", "  bearer_token: {s}", "  hf-token: {s}", "api-token: {s}", "  wandb_key: {s}"), bare=False),
    "toml or ini": Kind(_word(ALNUM, 24), ("api_key = \"{s}\"", "secret_key = {s}", "[auth]\ntoken = {s}", "password = {s}", "access_key = {s}"), bare=False),
    "url token": Kind(_word(ALNUM, 32), ("GET /v1/x?token={s} HTTP/1.1", "http://127.0.0.1:8888/lab?token={s}", "https://x.example.com/a?access_token={s}&y=1", "https://x/?api_key={s}", "ws://h/x?auth={s}&n=1", "https://h/x?apikey={s}", "https://{s}@api.example.com/v1", "https://h/p?key={s}", "https://h/cb?code={s}&state=1", "https://h/x#access_token={s}", "https://h/x?password={s}", "https://h/x?X-Amz-Credential=a&X-Amz-Signature={s}"), bare=False),
    "cookie": Kind(_word(ALNUM, 32), ("Cookie: session={s}", "Set-Cookie: sid={s}; Path=/; HttpOnly", "cookie: a=1; auth={s}", "'Cookie': 'sessionid={s}'", "-b 'session={s}'", "curl --cookie 'sid={s}' http://x", "JSESSIONID={s}", "sessionid={s}; csrftoken=x"), bare=False),
    "wandb key": Kind(_word(HEX, 40), ("wandb login {s}", "wandb: using key {s}", "machine api.wandb.ai\n  login user\n  password {s}", "wandb login --relogin {s}", "wandb.login(key='{s}')", "wandb.login(key=\"{s}\")"), ("WANDB_API_KEY",), bare=False),
    "redis password": Kind(_password, ("requirepass {s}", "masterauth {s}", "redis-cli -a {s} ping", "redis-server --requirepass {s}", "ray start --head --redis-password={s}", "ray start --address=10.0.0.1:6379 --redis-password {s}", "config set requirepass {s}", "AUTH {s}", "REDISCLI_AUTH={s}"), bare=False),
    "npm and pypi": Kind(_one_of(_fixed("npm_", ALNUM, 36), _fixed("pypi-AgEIcHlwaS5vcmc", URLSAFE, 100)), ("//registry.example.com/:_authToken={s}",), ("NPM_TOKEN", "TWINE_PASSWORD")),
    "vault token": Kind(_one_of(_fixed("hvs.", URLSAFE, 90), _fixed("s.", ALNUM, 24)), ("vault login {s}", "X-Vault-Token: {s}"), ("VAULT_TOKEN",), bare=False),
    "model gateways": Kind(_one_of(_fixed("gsk_", ALNUM, 52), _fixed("xai-", ALNUM, 80), _fixed("sk-or-v1-", HEX, 64), _fixed("r8_", ALNUM, 37), _fixed("pplx-", ALNUM, 48), _fixed("lsv2_pt_", HEX, 43)), named=("GROQ_API_KEY", "LANGSMITH_API_KEY", "OPENROUTER_API_KEY")),
    "chinese clouds": Kind(_one_of(_fixed("LTAI5t", ALNUM, 18), _fixed("AKID", ALNUM, 32)), ("accessKeyId: {s}", "secretId={s}"), ("ALIBABA_CLOUD_ACCESS_KEY_ID",)),
    "cloud secret": Kind(_word(ALNUM, 30), ("accessKeySecret: {s}", "AccessKeySecret={s}", "secretKey={s}", "OSS_ACCESS_KEY_SECRET={s}", "ossutil config -i id -k {s}"), ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "TENCENTCLOUD_SECRET_KEY", "MODELSCOPE_API_TOKEN"), bare=False),
    "model scope token": Kind(_uuid, ("MODELSCOPE_API_TOKEN={s}", "modelscope login --token {s}", "ms_token: {s}"), bare=False),
    "monitoring": Kind(_one_of(_fixed("glsa_", ALNUM, 32, "_1a2b3c4d"), _fixed("NRAK-", string.ascii_uppercase + string.digits, 27), _fixed("dapi", HEX, 32)), named=("GRAFANA_TOKEN", "DATABRICKS_TOKEN", "DD_API_KEY")),
    "sentry dsn": Kind(_word(HEX, 32), ("SENTRY_DSN=https://{s}@o123.ingest.sentry.io/456", "dsn='https://{s}@sentry.example.com/2'"), bare=False),
    "payments and mail": Kind(_one_of(_fixed("sk_live_", ALNUM, 24), lambda rng: f"SG.{_word(URLSAFE, 22)(rng)}.{_word(URLSAFE, 43)(rng)}", _fixed("key-", HEX, 32)), named=("STRIPE_KEY", "SENDGRID_API_KEY")),
    "netrc": Kind(_password, ("machine api.example.com login bob password {s}", "machine h\n\tlogin u\n\tpassword {s}"), bare=False),
    "snmp and bmc": Kind(_password, ("snmpwalk -v2c -c {s} 10.0.0.2", "redfish user=root password={s}", "IPMI_PASSWORD={s}", "bmc_password: {s}", "curl -k -u root:{s} https://10.0.0.9/redfish/v1"), bare=False),
    "munge and slurm": Kind(_one_of(lambda rng: "MUNGE:" + _word(B64, 120)(rng) + ":"), ("munge -n: {s}", "slurmrestd: {s}"), ("MUNGE_CRED",)),
}  # fmt: skip

NOISE = (
    "node0:4121:4203 [0] NCCL INFO comm 0x55d5e0a1 rank 0 nranks 8 cudaDev 0 busId 1b000 commId 0x8c5fd0c0a7b9c3e1",
    "INFO 11-22 09:14:02 [metrics.py:486] Avg prompt throughput: 512.3 tokens/s, Running: 12 reqs, GPU KV cache: 41.2%",
    "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-5ed3c7a1-1a2b-3c4d-5e6f-0123456789ab)",
    "NVRM: Xid (PCI:0000:1b:00): 79, pid=4121, GPU has fallen off the bus.",
    "max_num_batched_tokens=8192 tokenizer_mode=auto eos_token_id=2 pad_token='<pad>'",
)


def _placed(kind: str, rng: random.Random, count: int) -> Iterator[Planted]:
    spec = KINDS[kind]
    own = list(spec.places)
    own += [t.replace("{n}", n) for n in spec.named for t in rng.sample(ENV, 3)]
    own += rng.sample(BARE, 5) if spec.bare else []
    rng.shuffle(own)
    for at in range(max(count, len(own))):
        secret = spec.make(rng)
        line = own[at % len(own)].format(s=secret)
        before, after = rng.sample(NOISE, 2), rng.sample(NOISE, 2)
        yield Planted(kind, secret, "\n".join([*before, line, *after]))


def planted(seed: int = 1, each: int = 8) -> list[Planted]:
    """Secrets of every kind in every place, at least `each` of a kind; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311 (nothing here is to be kept secret)
    return [item for kind in KINDS for item in _placed(kind, rng, each)]


def leaked(secret: str, text: str) -> str:
    """The first part of a secret that can be read in a text, or nothing."""
    least = min(LEAST, len(secret))
    for at in range(len(secret) - least + 1):
        part = secret[at : at + least]
        if part in text and "-----" not in part and "PRIVATE KEY" not in part and not part.isspace():
            if set(part) <= set("-ABCDEFGHIJKLMNOPQRSTUVWXYZ \n"):
                continue  # of the frame around a key
            return part
    return ""


def misses(items: Iterable[Planted]) -> list[Planted]:
    """Those whose secret is still seen after masking."""
    return [item for item in items if leaked(item.secret, mask(item.text))]


def masked_in(data: bytes) -> list[bytes]:
    """What would be masked in a log that holds no secret."""
    return [data[a:b] for a, b, _ in secrets(data)]
