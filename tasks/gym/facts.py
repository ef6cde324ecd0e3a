"""Facts that a language model learns from its pre-training: capitals, chemical elements, opposites.

Only capitals of one word, so that a reply's word can be compared with them.
"""

from __future__ import annotations


def _pairs(text: str) -> dict[str, str]:
    pairs = (pair.split("=") for pair in " ".join(text.split()).split(";"))
    return {name.strip(): value.strip() for name, value in pairs}


CAPITALS = _pairs(
    """Afghanistan=Kabul; Albania=Tirana; Algeria=Algiers; Angola=Luanda; Armenia=Yerevan;
    Australia=Canberra; Austria=Vienna; Azerbaijan=Baku; Bahrain=Manama; Bangladesh=Dhaka;
    Barbados=Bridgetown; Belarus=Minsk; Belgium=Brussels; Belize=Belmopan; Bhutan=Thimphu;
    Botswana=Gaborone; Brazil=Brasilia; Bulgaria=Sofia; Cameroon=Yaounde; Canada=Ottawa;
    Chile=Santiago; China=Beijing; Colombia=Bogota; Croatia=Zagreb; Cuba=Havana; Cyprus=Nicosia;
    Denmark=Copenhagen; Ecuador=Quito; Egypt=Cairo; Eritrea=Asmara; Estonia=Tallinn; Fiji=Suva;
    Finland=Helsinki; France=Paris; Gabon=Libreville; Georgia=Tbilisi; Germany=Berlin; Ghana=Accra;
    Greece=Athens; Guinea=Conakry; Guyana=Georgetown; Honduras=Tegucigalpa; Hungary=Budapest;
    Iceland=Reykjavik; Indonesia=Jakarta; Iran=Tehran; Iraq=Baghdad; Ireland=Dublin; Italy=Rome;
    Jamaica=Kingston; Japan=Tokyo; Jordan=Amman; Kenya=Nairobi; Kosovo=Pristina; Latvia=Riga;
    Lebanon=Beirut; Lesotho=Maseru; Liberia=Monrovia; Libya=Tripoli; Lithuania=Vilnius;
    Madagascar=Antananarivo; Malawi=Lilongwe; Mali=Bamako; Malta=Valletta; Mauritania=Nouakchott;
    Moldova=Chisinau; Mongolia=Ulaanbaatar; Montenegro=Podgorica; Morocco=Rabat; Mozambique=Maputo;
    Namibia=Windhoek; Nepal=Kathmandu; Netherlands=Amsterdam; Nicaragua=Managua; Niger=Niamey;
    Nigeria=Abuja; North Korea=Pyongyang; Norway=Oslo; Oman=Muscat; Pakistan=Islamabad;
    Paraguay=Asuncion; Peru=Lima; Philippines=Manila; Poland=Warsaw; Portugal=Lisbon; Qatar=Doha;
    Romania=Bucharest; Russia=Moscow; Rwanda=Kigali; Samoa=Apia; Saudi Arabia=Riyadh;
    Senegal=Dakar; Serbia=Belgrade; Sierra Leone=Freetown; Slovakia=Bratislava; Slovenia=Ljubljana;
    Somalia=Mogadishu; South Korea=Seoul; Spain=Madrid; Sudan=Khartoum; Suriname=Paramaribo;
    Sweden=Stockholm; Switzerland=Bern; Syria=Damascus; Taiwan=Taipei; Tajikistan=Dushanbe;
    Tanzania=Dodoma; Thailand=Bangkok; Togo=Lome; Tunisia=Tunis; Turkey=Ankara;
    Turkmenistan=Ashgabat; Uganda=Kampala; Ukraine=Kyiv; Uruguay=Montevideo; Uzbekistan=Tashkent;
    Vanuatu=Vila; Venezuela=Caracas; Vietnam=Hanoi; Zambia=Lusaka; Zimbabwe=Harare"""
)
"""Country to capital."""

ELEMENTS = _pairs(
    """H=hydrogen; He=helium; Li=lithium; Be=beryllium; B=boron; C=carbon; N=nitrogen; O=oxygen;
    F=fluorine; Ne=neon; Na=sodium; Mg=magnesium; Al=aluminum; Si=silicon; P=phosphorus; S=sulfur;
    Cl=chlorine; Ar=argon; K=potassium; Ca=calcium; Sc=scandium; Ti=titanium; V=vanadium;
    Cr=chromium; Mn=manganese; Fe=iron; Co=cobalt; Ni=nickel; Cu=copper; Zn=zinc; Ga=gallium;
    Ge=germanium; As=arsenic; Se=selenium; Br=bromine; Kr=krypton; Rb=rubidium; Sr=strontium;
    Y=yttrium; Zr=zirconium; Nb=niobium; Mo=molybdenum; Tc=technetium; Ru=ruthenium; Rh=rhodium;
    Pd=palladium; Ag=silver; Cd=cadmium; In=indium; Sn=tin; Sb=antimony; Te=tellurium; I=iodine;
    Xe=xenon; Cs=cesium; Ba=barium; La=lanthanum; Ce=cerium; Nd=neodymium; W=tungsten; Re=rhenium;
    Os=osmium; Ir=iridium; Pt=platinum; Au=gold; Hg=mercury; Tl=thallium; Pb=lead; Bi=bismuth;
    Po=polonium; Rn=radon; Ra=radium; Th=thorium; U=uranium; Pu=plutonium"""
)
"""Symbol to the element's name."""

NAMES = {
    "aluminum": ("aluminum", "aluminium"),
    "sulfur": ("sulfur", "sulphur"),
    "cesium": ("cesium", "caesium"),
    "Kyiv": ("Kyiv", "Kiev"),
}
"""Names that are written in two ways."""

OPPOSITES = _pairs(
    """
    hot=cold; big=small, little; up=down; open=closed, close, shut; fast=slow; happy=sad, unhappy;
    light=dark, heavy; day=night; left=right; old=new, young; high=low; rich=poor; full=empty;
    wet=dry; strong=weak; early=late; easy=hard, difficult; good=bad, evil; black=white;
    true=false; love=hate, hatred; war=peace; begin=end, finish; buy=sell; push=pull;
    inside=outside; first=last; near=far; loud=quiet, silent, soft; clean=dirty; hard=soft, easy;
    long=short; male=female; north=south; east=west; summer=winter; life=death; win=lose;
    sweet=sour, bitter; thick=thin; wide=narrow; above=below; before=after; alive=dead;
    brave=cowardly, timid, afraid; cheap=expensive; deep=shallow; enemy=friend; smooth=rough;
    tall=short; accept=refuse, reject; ancient=modern; arrive=leave, depart; ask=answer;
    awake=asleep; beautiful=ugly; bottom=top; crowded=empty; future=past; generous=stingy,
    selfish; guilty=innocent; increase=decrease; man=woman; maximum=minimum; always=never;
    import=export; laugh=cry; lend=borrow; many=few; morning=evening; polite=rude; public=private;
    question=answer; remember=forget; safe=dangerous; same=different; sick=healthy, well;
    single=married; sunrise=sunset; tight=loose; victory=defeat; young=old; simple=complex,
    complicated; heaven=hell; noisy=quiet, silent; possible=impossible; success=failure;
    tame=wild; temporary=permanent; visible=invisible; wise=foolish; cruel=kind; front=back, rear;
    give=take, receive; king=queen; fresh=stale"""
)
"""Words and what may be called their opposites."""
