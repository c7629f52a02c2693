/*
 * html_style.c - the page's style sheet.
 *
 * Hues are those of Okabe and Ito's palette ("Color Universal Design", 2008), which stay apart in
 * the common forms of colour blindness; as fills they are lightened (or, on dark, darkened) until
 * letters on them have a contrast of at least 4.5. Nothing is told by colour alone.
 */
#include "verify/html_style.h"

#include <stddef.h>

const char *const html_style[] = {
    ":root{color-scheme:light dark;--bg:#f4f5f7;--card:#fff;--ink:#16191d;--dim:#555c66;"
    "--rule:#d6dae0;--grid:#e6e8ec;--c1:#005f9e;--c2:#b0430c;--band:#fae9de;--ok:#0b6136;"
    "--okbg:#e2f3e9;--bad:#99200e;--badbg:#fbe6e2;--free:#e3e6ea;"
    "--r0:#a8d0f0;--r1:#f6cf8a;--r2:#a6dcc4;--r3:#e6b8d3;--r4:#d5d8dc;--r5:#f2ab91;--rt:#16191d;"
    "--h0:#eaf2fa;--h1:#d3e4f4;--h2:#b5d2ec;--h3:#8fbce0;--h4:#6aa6d4;--h5:#2f74ae;--h6:#1d5c94;"
    "--h7:#0a4172;--klo:#10202f;--khi:#fff;--kmid:#10202f}\n",
    "@media(prefers-color-scheme:dark){:root{--bg:#0e1116;--card:#171b22;--ink:#e9ecf1;"
    "--dim:#a2aab6;--rule:#323944;--grid:#262c35;--c1:#6bb7f0;--c2:#ff9f68;--band:#4a2f1f;"
    "--ok:#7fdba8;--okbg:#12301f;--bad:#ff9d8a;--badbg:#3b1712;--free:#2a303a;"
    "--r0:#1f4e79;--r1:#74500a;--r2:#14614a;--r3:#74395a;--r4:#454b54;--r5:#8a3b1e;--rt:#f4f6f9;"
    "--h0:#182633;--h1:#1d3a54;--h2:#234e74;--h3:#2a6495;--h4:#4a8cc3;--h5:#6aa8da;--h6:#8dc0e9;"
    "--h7:#b6daf8;--klo:#f4f6f9;--khi:#0b1117;--kmid:#0b1117}}\n",
    "*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}"
    "body{margin:0;background:var(--bg);color:var(--ink);"
    "font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
    "main{max-width:920px;margin:0 auto;padding:16px 12px 48px}"
    "header,section{background:var(--card);border:1px solid var(--rule);border-radius:10px;"
    "padding:16px 12px;margin:0 0 14px}"
    "@media(min-width:900px){header,section{padding:22px 39px}main{padding-top:28px}}\n",
    "h1{font-size:1.9rem;line-height:1.15;margin:0 0 6px}h2{font-size:1.2rem;line-height:1.3;"
    "margin:0 0 6px}h3{font-size:1rem;margin:18px 0 4px}p{margin:0 0 10px;max-width:68ch}"
    "header.ok{border-color:var(--ok);background:var(--okbg)}header.ok h1{color:var(--ok)}"
    "header.bad{border-color:var(--bad);background:var(--badbg)}header.bad h1{color:var(--bad)}"
    "header p,header li{overflow-wrap:anywhere}header ul{margin:8px 0 0;padding-left:20px}"
    ".dim,.src{color:var(--dim)}.src{font-size:.85rem;margin-top:8px}"
    "code{font:.9em ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
    "overflow-wrap:anywhere}\n",
    "dl.key{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:12px 18px;"
    "margin:0}dl.key div{min-width:0}dl.key dt{font-size:.85rem;color:var(--dim)}"
    "dl.key dd{margin:0;font-size:1.25rem;font-weight:600;font-variant-numeric:tabular-nums;"
    "overflow-wrap:anywhere}dl.key dd small{font-size:.8rem;font-weight:400;color:var(--dim);"
    "display:block}\n",
    "details{margin:10px 0 0}summary{cursor:pointer;color:var(--c1);padding:4px 0}"
    ".scroll{overflow-x:auto;max-width:100%}"
    "table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums;"
    "margin:6px 0}th,td{text-align:left;padding:4px 12px 4px 0;border-bottom:1px solid var(--rule);"
    "vertical-align:top}th{font-weight:600;color:var(--dim)}td.n,th.n{text-align:right}"
    "td{white-space:nowrap}td.w{white-space:normal;min-width:9em;max-"
    "width:26em;overflow-wrap:anywhere}"
    ".yes{color:var(--ok);font-weight:600}.no{color:var(--bad);font-weight:600}.warn{color:var(--"
    "c2)}"
    ".open{color:var(--dim)}ul.checks{list-style:none;padding:0;margin:0}"
    "ul.checks li{position:relative;padding:5px 0 5px 26px;border-bottom:1px solid var(--rule);"
    "overflow-wrap:anywhere}ul.checks li:last-child{border:0}ul.checks "
    "b{position:absolute;left:2px;"
    "width:22px}ul.checks b.yes,ul.checks b.no{font-weight:700}\n",
    ".legend{display:flex;flex-wrap:wrap;gap:4px 14px;font-size:.85rem;margin:6px 0 0;padding:0;"
    "list-style:none}.legend i{display:inline-block;width:12px;height:12px;margin-right:5px;"
    "vertical-align:-1px;border:1px solid var(--rule)}"
    ".g0{background:var(--r0)}.g1{background:var(--r1)}.g2{background:var(--r2)}"
    ".g3{background:var(--r3)}.g4{background:var(--r4)}.g5{background:var(--r5)}\n",
    ".wide,.narrow{margin:8px 0 0}.wide{display:none}.narrow svg{display:block;width:100%;"
    "max-width:480px;height:auto;margin:0 auto}"
    "@media(min-width:900px){.wide{display:block}.narrow{display:none}"
    ".wide svg{display:block;max-width:100%;height:auto}}\n",
    "svg{font:11px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;"
    "font-variant-numeric:tabular-nums}"
    "text{fill:var(--ink)}.t,.d{fill:var(--dim)}.b{font-weight:600}.s{font-size:9px}.m{text-anchor:"
    "middle}"
    ".e{text-anchor:end}.bt,.bh{fill:var(--rt);pointer-events:none;font-size:10.5px}"
    ".bh{fill:var(--ink);font-weight:600;font-size:11px}"
    ".grid{stroke:var(--grid)}.ax{stroke:var(--dim)}.mean{stroke:var(--dim);"
    "stroke-dasharray:4 4}.err{stroke:var(--c1);stroke-opacity:.55;stroke-width:1.5}"
    ".l1,.l2{fill:none;stroke:var(--c1);stroke-width:1.8;stroke-linejoin:round}"
    ".l2{stroke:var(--c2)}.dot{fill:var(--c1);stroke:var(--card);stroke-width:1}"
    ".l2.dot{fill:var(--c2)}.ring{fill:var(--card)}.mark{fill:var(--c1);stroke:none}.l2.mark{fill:"
    "var(--c2)}"
    ".f1{fill:var(--c1);font-weight:600}.f2{fill:var(--c2);font-weight:600}"
    ".band{fill:var(--band)}.free{fill:var(--free)}.used{fill:var(--c1)}.over{fill:var(--bad)}"
    ".r0,.r1,.r2,.r3,.r4,.r5{stroke:var(--card);stroke-width:.8}"
    ".r0{fill:var(--r0)}.r1{fill:var(--r1)}.r2{fill:var(--r2)}.r3{fill:var(--r3)}"
    ".r4{fill:var(--r4)}.r5{fill:var(--r5)}"
    ".edge{fill:none;stroke:var(--card);stroke-width:3;pointer-events:none}"
    ".h0{fill:var(--h0)}.h1{fill:var(--h1)}.h2{fill:var(--h2)}.h3{fill:var(--h3)}"
    ".h4{fill:var(--h4)}.h5{fill:var(--h5)}.h6{fill:var(--h6)}.h7{fill:var(--h7)}"
    ".k0,.k1,.k2,.k3{fill:var(--klo)}.k4{fill:var(--kmid)}.k5,.k6,.k7{fill:var(--khi)}"
    "footer{color:var(--dim);font-size:.85rem;padding:0 12px}\n",
    NULL};
